//! A line of progress for some steps of a run.

use std::time::Duration;

use pard::low_level::training::StepReport;

/// The steps since the last line.
#[derive(Default)]
pub struct Recent {
    reports: Vec<StepReport>,
}

impl Recent {
    pub fn add(&mut self, report: StepReport) {
        self.reports.push(report);
    }

    /// Loss, the share of right choices per segment, speed and the time that is left. With a teacher, right is what it
    /// would have said.
    pub fn line(&self, left: Duration, has_teacher: bool) -> String {
        let Some(last) = self.reports.last() else { return String::new() };
        let mean = |of: fn(&StepReport) -> f64| self.reports.iter().map(of).sum::<f64>() / self.reports.len() as f64;
        let loss = mean(|report| report.loss);
        let divergence = match has_teacher {
            true => format!(", divergence {:.3}", mean(|report| report.divergence)),
            false => String::new(),
        };
        let seconds: f64 = self.reports.iter().map(|report| report.time.as_secs_f64()).sum();
        let tokens: usize = self.reports.iter().map(|report| report.tokens).sum();
        let rows: usize = self.reports.iter().map(|report| report.rows).sum();
        let shares = (0..last.segments.len()).map(|segment| {
            let [all, right] = self.reports.iter().fold([0, 0], |[all, right], report| {
                [all + report.segments[segment][0], right + report.segments[segment][1]]
            });
            format!("{:.0}", 100.0 * right as f64 / all.max(1) as f64)
        });
        format!(
            "step {}, epoch {}: loss {loss:.3}{divergence}, right {} %, norm {:.2}, {:.0} tokens/s, {:.0} rows/s, {} left",
            last.position.step,
            last.position.epoch + 1,
            shares.collect::<Vec<_>>().join(" "),
            last.norm,
            tokens as f64 / seconds,
            rows as f64 / seconds,
            clock(left),
        )
    }
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
