//! The one verdict on numbers: every element within its own derived bound, or the test fails.
//! `actual` is f32 and `expected` f64, so that comparing a buffer with itself does not compile.
//! A norm over the whole array was rejected as the verdict for kernels: it hides a single wrong element.

use std::fmt::Write as _;
use std::path::PathBuf;

/// The largest relative error of one f32 operation: WGSL fixes no rounding mode, hence 2^-23 and not 2^-24.
pub const ROUNDOFF: f64 = f32::EPSILON as f64;

/// 2^-126: what a result may lose where subnormals are flushed to zero.
pub const FLUSH: f64 = f32::MIN_POSITIVE as f64;

/// `γₙ = n·u / (1 − n·u)`, the largest relative error of a product of n factors `1 + δ`, `|δ| ≤ u`.
///
/// **Source**: Higham, *Accuracy and Stability of Numerical Algorithms*, lemma 3.1.
pub fn gamma(roundings: f64) -> f64 {
    let product = roundings * ROUNDOFF;
    assert!(product < 1.0, "a sum of {roundings} roundings in f32 has no bound");
    product / (1.0 - product)
}

/// `γₙ·Σ|aᵢbᵢ| + n·2⁻¹²⁶`: the error of a dot product of `depth` terms, in any order of summation.
///
/// **Source**: Higham, section 3.1; the last term is for flushed subnormal products.
pub fn dot_bound(depth: usize, sum_abs: f64) -> f64 {
    gamma(depth as f64) * sum_abs + depth as f64 * FLUSH
}

/// Error if `value`, as an input, is flushed to zero: its magnitude if it is subnormal in f32, else 0.
pub fn flushed(value: f64) -> f64 {
    if value.abs() < FLUSH { value.abs() } else { 0.0 }
}

/// `‖a − e‖ / ‖e‖` over all elements; NaN if any of them is, or if the lengths differ.
pub fn relative_error(actual: &[f32], expected: &[f32]) -> f64 {
    if actual.len() != expected.len() {
        return f64::NAN;
    }
    let error: f64 = actual.iter().zip(expected).map(|(&a, &e)| (f64::from(a) - f64::from(e)).powi(2)).sum();
    let norm: f64 = expected.iter().map(|&e| f64::from(e).powi(2)).sum();
    (error / norm).sqrt()
}

/// Fails the test unless `|actual − expected| <= bound` for every element.
///
/// `context` goes into the message: shape, seed, adapter. On failure both arrays are written to `target/failed/`.
pub fn check(op: &str, context: &str, actual: &[f32], expected: &[f64], bound: &[f64]) {
    if let Err(fault) = verdict(op, context, actual, expected, bound) {
        let written = match write_failed(op, actual, expected, bound) {
            Ok(path) => format!("arrays in {}", path.display()),
            Err(error) => format!("arrays not written: {error}"),
        };
        panic!("{fault}\n  {written}");
    }
}

/// The check itself; the message names the first and the worst element and counts the failures.
pub fn verdict(op: &str, context: &str, actual: &[f32], expected: &[f64], bound: &[f64]) -> Result<(), String> {
    if actual.len() != expected.len() || bound.len() != expected.len() {
        let lens = (actual.len(), expected.len(), bound.len());
        return Err(format!("{op}: {} elements, expected {}, bounds for {} ({context})", lens.0, lens.1, lens.2));
    }
    let error = |index: usize| (f64::from(actual[index]) - expected[index]).abs();
    // Written with `<=` and a negation, so that NaN on either side is a failure.
    let is_wrong = |index: usize| {
        let within = error(index) <= bound[index];
        !within
    };
    let failures: Vec<usize> = (0..actual.len()).filter(|&index| is_wrong(index)).collect();
    let Some(&first) = failures.first() else { return Ok(()) };
    let severity = |index: usize| {
        let ratio = error(index) / bound[index];
        if ratio.is_nan() { f64::INFINITY } else { ratio }
    };
    let worst = failures.iter().copied().max_by(|&a, &b| severity(a).total_cmp(&severity(b))).unwrap_or(first);
    let mut message = format!("{op}: {} of {} elements wrong ({context})", failures.len(), actual.len());
    for (label, index) in [("first", first), ("worst", worst)] {
        let (got, wanted, error, bound) = (actual[index], expected[index], error(index), bound[index]);
        let _ = write!(
            message,
            "\n  {label} [{index}]: got {got:e}, expected {wanted:e}, error {error:e}, bound {bound:e}"
        );
    }
    Err(message)
}

/// Writes both arrays, one element a line, and returns the file.
fn write_failed(op: &str, actual: &[f32], expected: &[f64], bound: &[f64]) -> std::io::Result<PathBuf> {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../failed");
    std::fs::create_dir_all(&target)?;
    let path = target.canonicalize()?.join(format!("{op}.tsv"));
    let mut text = String::from("index\tactual\texpected\tbound\n");
    for index in 0..actual.len().max(expected.len()) {
        let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:e}"));
        let cells = [actual.get(index).map(|&a| f64::from(a)), expected.get(index).copied(), bound.get(index).copied()];
        let _ = writeln!(text, "{index}\t{}", cells.map(cell).join("\t"));
    }
    std::fs::write(&path, text)?;
    Ok(path)
}

mod tests {
    use super::*;

    const EXPECTED: [f64; 4] = [1.0, -2.0, 3.0, 0.0];
    const BOUND: [f64; 4] = [1e-3; 4];

    fn fault(actual: &[f32]) -> String {
        verdict("op", "seed 7", actual, &EXPECTED, &BOUND).expect_err("must be rejected")
    }

    #[test]
    fn accepts_what_lies_within_the_bound() {
        verdict("op", "", &[1.0005, -2.0005, 3.0, -0.0], &EXPECTED, &BOUND).expect("within the bound");
        verdict("op", "", &[1.0, -2.0, 3.0, 0.0], &EXPECTED, &[0.0; 4]).expect("exact");
    }

    #[test]
    fn rejects_one_element_off_by_two_bounds() {
        let message = fault(&[1.0, -2.0, 3.002, 0.0]);
        for part in ["op: 1 of 4", "seed 7", "[2]", "expected 3e0", "bound 1e-3"] {
            assert!(message.contains(part), "{part:?} not in {message}");
        }
    }

    #[test]
    fn rejects_nan_and_infinity_wherever_they_stand() {
        assert!(fault(&[1.0, f32::NAN, 3.1, 0.0]).contains("worst [1]"));
        fault(&[f32::INFINITY, -2.0, 3.0, 0.0]);
        verdict("op", "", &[1.0], &[f64::NAN], &[1.0]).expect_err("NaN expected");
        verdict("op", "", &[1.0], &[1.0], &[f64::NAN]).expect_err("NaN bound");
        verdict("op", "", &[f32::INFINITY], &[f64::INFINITY], &[1.0]).expect_err("no finite error");
    }

    #[test]
    fn rejects_an_error_between_two_negatives() {
        fault(&[1.0, -2.002, 3.0, 0.0]);
        fault(&[1.0, -1.998, 3.0, 0.0]);
        fault(&[1.0, 2.0, 3.0, 0.0]);
    }

    #[test]
    fn rejects_a_wrong_length() {
        assert!(fault(&[1.0, -2.0, 3.0]).contains("3 elements, expected 4"));
        fault(&[1.0, -2.0, 3.0, 0.0, 0.0]);
        verdict("op", "", &[1.0], &[1.0], &[]).expect_err("no bound");
    }

    #[test]
    fn names_the_worst_element() {
        let message = fault(&[1.002, -2.0, 3.5, 0.002]);
        assert!(message.contains("3 of 4") && message.contains("first [0]") && message.contains("worst [2]"));
    }

    #[test]
    fn a_failure_leaves_both_arrays_on_disk() {
        let op = "comparison_self_test";
        let panic = std::panic::catch_unwind(|| check(op, "", &[1.5], &[1.0], &[0.25])).expect_err("must fail");
        let message = panic.downcast_ref::<String>().expect("a formatted message");
        let path = message.rsplit("arrays in ").next().expect("a path");
        let written = std::fs::read_to_string(path).expect("the file named in the message");
        assert!(written.contains("0\t1.5e0\t1e0\t2.5e-1"), "{written}");
        std::fs::remove_file(path).expect("removing the self test's file");
    }

    #[test]
    fn bounds_follow_the_formulas() {
        assert_eq!(ROUNDOFF, 2f64.powi(-23));
        assert_eq!(FLUSH, 2f64.powi(-126));
        assert_eq!(dot_bound(4, 0.0), 4.0 * FLUSH);
        let product = 4.0 * ROUNDOFF;
        assert_eq!(dot_bound(4, 2.0), product / (1.0 - product) * 2.0 + 4.0 * FLUSH);
        assert_eq!((flushed(FLUSH), flushed(-FLUSH / 2.0), flushed(0.0)), (0.0, FLUSH / 2.0, 0.0));
    }

    #[test]
    fn relative_error_is_of_the_norms() {
        assert_eq!(relative_error(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert_eq!(relative_error(&[3.0, 3.0], &[0.0, 3.0]), 1.0);
        assert!(relative_error(&[1.0, f32::NAN], &[1.0, 1.0]).is_nan());
        assert!(relative_error(&[1.0], &[1.0, 1.0]).is_nan());
    }
}
