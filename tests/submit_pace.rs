//! The bound of a submit's time, on devices of all speeds.

use std::time::Duration;

use pard::low_level::forward::SubmitPace;

/// Rows of each submit of a prompt on a device that takes `row` seconds a row and `fixed` beside.
fn submits(pace: &mut SubmitPace, prompt: usize, row: f64, fixed: f64) -> Vec<(usize, f64)> {
    let (mut left, mut submits) = (prompt, Vec::new());
    while left > 0 {
        let rows = pace.rows().min(left);
        let seconds = fixed + row * rows as f64;
        pace.took(rows, Duration::from_secs_f64(seconds));
        submits.push((rows, seconds));
        left -= rows;
    }
    submits
}

#[test]
fn no_submit_takes_long_and_few_are_needed() {
    for most in [32, 100, 512] {
        for row in [1e-7, 1e-5, 1e-4, 1e-3, 5e-3, 1.5e-2] {
            for fixed in [0.0, 1e-3, 2e-2] {
                let mut pace = SubmitPace::new(most);
                let first = submits(&mut pace, 4096, row, fixed);
                // The first submit is the only one of an unknown device.
                let longest = first.iter().skip(1).map(|(_, seconds)| *seconds).fold(0.0, f64::max);
                assert!(longest <= 0.33, "{longest} s at {row} s a row, {fixed} beside");
                assert!(first[0].1 <= 1.0, "{first:?}");
                assert!(first.iter().all(|(rows, _)| *rows <= most));
                // A second prompt begins where the first ended, a short one leaves it so.
                submits(&mut pace, 3, row, fixed);
                let second = submits(&mut pace, 4096, row, fixed);
                let whole = 4096usize.div_ceil(most) as f64;
                let affordable = 4096.0 * row / 0.3 + whole * 1.2 + 2.0;
                assert!((second.len() as f64) <= 1.4 * affordable, "{} submits at {row}, {fixed}", second.len());
            }
        }
    }
}

#[test]
fn a_device_that_slows_down_gets_less() {
    let mut pace = SubmitPace::new(512);
    submits(&mut pace, 4096, 1e-5, 0.0);
    assert_eq!(pace.rows(), 512);
    pace.took(512, Duration::from_millis(1200));
    assert_eq!(pace.rows(), 128);
    pace.took(128, Duration::from_secs(9));
    assert_eq!(pace.rows(), 16, "the fewest rows there are");
}

#[test]
fn a_software_device_is_not_bound() {
    let mut pace = SubmitPace::unbounded(300);
    assert_eq!(pace.rows(), 300);
    pace.took(300, Duration::from_secs(9));
    assert_eq!(pace.rows(), 300);
}
