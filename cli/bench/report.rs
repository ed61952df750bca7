//! Report of the bench: speeds, acceptance rates, and whether the tokens are AR's.

use pard::checkpoint::published::PublishedDraft;
use pard::decoding::{DraftLength, Method, Sequence, Statistics};
use serde_json::{Value, json};

use crate::answer::{Answer, drafts_json, joined, sampling_json, statistics_json, tokens_per_second};
use crate::load::Models;
use crate::output;
use crate::prompt::Prompt;

/// Part of the tokens per round that its authors measured, below which a draft is not run as it was made to be.
const FAR_BELOW: f64 = 0.6;

/// One method's answers.
pub struct Run {
    pub sequence: Sequence,
    statistics: Statistics,
    output_tokens: usize,
    outputs: Vec<Vec<u32>>,
}

impl Run {
    pub fn new(sequence: Sequence) -> Run {
        Run { sequence, statistics: Statistics::default(), output_tokens: 0, outputs: Vec::new() }
    }

    /// Adds the answer to the next prompt.
    pub fn count(&mut self, answer: Answer) {
        self.statistics += &answer.statistics;
        self.output_tokens += answer.output.len();
        self.outputs.push(answer.output);
    }

    fn method(&self) -> Method {
        self.sequence.options().method
    }

    fn name(&self) -> String {
        self.sequence.options().proposers()
    }

    fn tokens_per_second(&self) -> f64 {
        tokens_per_second(self.output_tokens, &self.statistics)
    }
}

/// First position at which an answer differs from AR's.
struct Difference {
    prompt: usize,
    position: usize,
}

/// All runs over the same prompts.
pub struct Report<'a> {
    pub models: &'a Models,
    pub draft: Option<&'a str>,
    pub context: usize,
    pub prompts: &'a [(&'a Prompt, Vec<u32>)],
    pub runs: &'a [Run],
}

impl Report<'_> {
    /// Returns `true` if every method wrote AR's tokens.
    pub fn is_lossless(&self) -> bool {
        self.runs.iter().all(|run| self.difference(run).is_none())
    }

    /// The report as one JSON object.
    pub fn as_json(&self) -> Value {
        let run = |run: &Run| {
            let difference = self.difference(run);
            let place = difference.as_ref().map(|at| json!({ "prompt": at.prompt, "position": at.position }));
            let report = json!({
                "method": run.name(),
                "k": drafts_json(run.sequence.options().drafts),
                "mean_k": run.statistics.mean_drafts(),
                "output_tokens": run.output_tokens,
                "speed_up": self.speed_up(run),
                "identical": self.reference().map(|_| difference.is_none()),
                "first_difference": place,
            });
            joined(report, statistics_json(run.output_tokens, &run.statistics))
        };
        json!({
            "target": self.models.target.name(),
            "draft": self.draft,
            "prompts": self.prompts.len(),
            "prompt_tokens": self.prompt_tokens(),
            "sampling": self.runs.first().map(|run| sampling_json(&run.sequence.options().sampling)),
            "methods": self.runs.iter().map(run).collect::<Vec<_>>(),
            "warning": self.shortfall(),
            "plan": self.models.plan(self.context),
        })
    }

    /// The report as tables.
    pub fn as_text(&self) -> String {
        let mut parts = vec![self.heading(), self.speeds()];
        parts.extend(self.acceptance());
        parts.extend(self.shortfall());
        parts.extend(self.verdict());
        parts.join("\n\n")
    }

    /// A warning if a parallel draft gets far fewer tokens per round than its authors do: the text is right then, and what
    /// the draft reads is not.
    fn shortfall(&self) -> Option<String> {
        let measured = PublishedDraft::named(self.draft?)?.measured?;
        let runs = self.runs.iter().filter_map(|run| {
            let options = run.sequence.options();
            let DraftLength::Fixed(drafts @ 1..) = options.drafts else { return None };
            let is_plain = options.method == Method::Pard && options.sampling.temperature == 0.0;
            is_plain.then(|| (drafts, run.statistics.tokens_per_round(), measured.expected(drafts)))
        });
        let (drafts, got, expected) = runs.into_iter().find(|(_, got, expected)| *got < FAR_BELOW * expected)?;
        Some(format!(
            "{got:.2} tokens per round at K = {drafts} are far below the {expected:.2} that its authors' {} at K = {} on {} \
             come to: is the chat template in use, and the draft the one for this model (pard inspect)?",
            measured.tokens_per_round, measured.drafts, measured.prompts
        ))
    }

    fn heading(&self) -> String {
        let transformer = &self.models.target.weights;
        let drafted = match self.draft {
            None => String::new(),
            Some(name) => format!(", drafted for by {name}"),
        };
        let drawn = match self.runs.first().map(|run| &run.sequence.options().sampling) {
            Some(sampling) if sampling.temperature > 0.0 => {
                format!("; drawn at temperature {} by seed {}", sampling.temperature, sampling.seed)
            }
            _ => String::new(),
        };
        let (prompts, tokens) = (self.prompts.len(), self.prompt_tokens());
        let plural = if prompts == 1 { "" } else { "s" };
        format!(
            "{}{drafted}; {prompts} prompt{plural} of {tokens} tokens in all{drawn}\n{}; {}",
            self.models.target.name(),
            transformer.device().name(),
            transformer.plan(),
        )
    }

    fn speeds(&self) -> String {
        let heading = [
            "method",
            "K",
            "mean K",
            "tokens/s",
            "speed-up",
            "rounds",
            "tokens/round",
            "tokens",
            "prompt s",
            "decode s",
            "identical",
        ];
        let row = |run: &Run| {
            let statistics = &run.statistics;
            let identical = match (run.method(), self.reference(), self.difference(run)) {
                (Method::Ar, ..) | (_, None, _) => "-",
                (_, Some(_), None) => "yes",
                (_, Some(_), Some(_)) => "NO",
            };
            vec![
                run.name(),
                run.sequence.options().drafts.to_string(),
                format!("{:.1}", statistics.mean_drafts()),
                format!("{:.2}", run.tokens_per_second()),
                self.speed_up(run).map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
                statistics.rounds.to_string(),
                format!("{:.2}", statistics.tokens_per_round()),
                run.output_tokens.to_string(),
                format!("{:.2}", statistics.prefill.as_secs_f64()),
                format!("{:.2}", statistics.decode.as_secs_f64()),
                identical.to_owned(),
            ]
        };
        let rows: Vec<_> =
            std::iter::once(heading.map(str::to_owned).to_vec()).chain(self.runs.iter().map(row)).collect();
        output::table(&rows)
    }

    /// Acceptance rate of the proposals at each position, for methods that propose.
    fn acceptance(&self) -> Option<String> {
        let speculative: Vec<&Run> = self.runs.iter().filter(|run| run.method() != Method::Ar).collect();
        let row = |name: &str, cells: Vec<String>| [vec![name.to_owned()], cells].concat();
        let positions = (1..=self.max_drafts()).map(|position| position.to_string()).collect();
        let mut rows = vec![row("accepted at", positions)];
        rows.extend(speculative.iter().map(|run| {
            let shares = run.statistics.accepted_per_position();
            let name = format!("{}, K = {}", run.name(), run.sequence.options().drafts);
            row(&name, shares.iter().map(|share| format!("{share:.2}")).collect())
        }));
        (!speculative.is_empty()).then(|| output::table(&rows))
    }

    /// In words, whether the tokens are AR's.
    fn verdict(&self) -> Option<String> {
        if self.reference().is_none() || self.runs.len() < 2 {
            return None;
        }
        let difference = |run: &Run| {
            let Difference { prompt, position } = self.difference(run)?;
            let shown: String = self.prompts[prompt].0.text().chars().take(60).collect();
            let (name, number) = (run.name(), prompt + 1);
            Some(format!(
                "{name}, K = {} differs from ar in prompt {number} ({shown:?}) at token {position} of the answer",
                run.sequence.options().drafts
            ))
        };
        let differences: Vec<String> = self.runs.iter().filter_map(difference).collect();
        Some(match differences.is_empty() {
            true => "The tokens of all methods are identical.".to_owned(),
            false => differences.join("\n"),
        })
    }

    fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|(_, tokens)| tokens.len()).sum()
    }

    /// The longest draft of all rounds.
    fn max_drafts(&self) -> usize {
        self.runs.iter().map(|run| run.statistics.accepted_per_position().len()).max().unwrap_or(0)
    }

    /// AR's run, which the others are held against.
    fn reference(&self) -> Option<&Run> {
        self.runs.iter().find(|run| run.method() == Method::Ar)
    }

    fn speed_up(&self, run: &Run) -> Option<f64> {
        Some(run.tokens_per_second() / self.reference()?.tokens_per_second())
    }

    /// First position at which the tokens of `run` differ from AR's, if any.
    fn difference(&self, run: &Run) -> Option<Difference> {
        let mut pairs = run.outputs.iter().zip(&self.reference()?.outputs).enumerate();
        let (prompt, (own, reference)) = pairs.find(|(_, (own, reference))| own != reference)?;
        let position = own.iter().zip(reference).take_while(|(own, reference)| own == reference).count();
        Some(Difference { prompt, position })
    }
}
