//! Loops that the composer writes out.

use naga::valid::{Capabilities, ValidationFlags, Validator};
use pard::low_level::gpu::{CacheFormat, Composition, Shaders, UNROLL, UNROLL_BUDGET, compose};

use crate::ops::attention::gpu_plan;
use crate::support::edited_shaders::replaced;
use crate::support::every_op::build_and_record;
use crate::support::gpu::noop;

/// Result of unrolling `body` in a function, under the prelude N = 3, M = 2.
fn unrolled(body: &str, budget: u32) -> String {
    let text = format!(
        "const ALL: u32 = max(N, M) * 2u;\n\
         @group(0) @binding(0) var<storage, read_write> out: array<u32>;\n\
         @compute @workgroup_size(1) fn multiply() {{ var a: array<u32, 64>; var b: array<array<u32, M>, ALL>; {body} }}"
    );
    let shaders = replaced("kernels/multiply.wgsl", &text);
    let text = compose(&shaders, &["multiply"], &[("N", 3), ("M", 2), (UNROLL, budget)]).expect("text");
    let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|error| panic!("{}", error.emit_to_string(&text)));
    Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).expect("valid");
    text
}

/// Number of loops in `text`.
fn loops(text: &str) -> usize {
    text.matches("for (").count()
}

#[test]
fn loops_with_constant_bounds_are_written_out() {
    let text = unrolled("for (var i = 0u; i < N; i++) { a[i] = i; }", 1000);
    assert_eq!(loops(&text), 0, "{text}");
    for value in 0..3 {
        assert!(text.contains(&format!("{{ const i = {value}u; a[i] = i; }}")), "{text}");
    }
    let nest = "for (var i = 1u; i <= ALL - 1u; i += M) { for (var j = i; j < i + M; j++) { b[i][j % M] += a[j]; } }";
    let text = unrolled(nest, 1000);
    assert_eq!((loops(&text), text.matches("b[i][j % M]").count()), (0, 6), "{text}");
    // A loop within may run for as long as it likes.
    let text = unrolled("for (var i = 0u; i < N; i++) { var j = i; while j < out[0] { a[i] += j; j++; } }", 1000);
    assert_eq!((loops(&text), text.matches("while").count()), (0, 3), "{text}");
    // A comment is no loop, and one in a loop stays where it is.
    let text = unrolled("for (var i = 0u; i < N; i++) { // for (var i = 0u; i < 9u; i++) {\n a[i] = 1u; }", 1000);
    assert_eq!(text.matches("const i = ").count(), 3, "{text}");
}

#[test]
fn a_nest_past_the_budget_keeps_its_outer_loops() {
    let nest = "for (var i = 0u; i < 60u; i++) { for (var j = 0u; j < M; j++) { a[i] += b[0][j]; } }";
    assert_eq!(loops(&unrolled(nest, 5000)), 0);
    let text = unrolled(nest, 200);
    assert_eq!((loops(&text), text.matches("const j = ").count()), (1, 2), "{text}");
    assert_eq!(loops(&unrolled(nest, 5)), 2);
    assert_eq!(loops(&unrolled(nest, 0)), 2, "a budget of nothing is none");
}

#[test]
fn other_loops_stay_as_they_are() {
    for kept in [
        "let n = out[0]; for (var i = 0u; i < n; i++) { a[i] = i; }",
        "for (var i = 0u; i < N; i++) { if out[0] == 3u { break; } a[i] = i; }",
        "for (var i = 0u; i < N; i++) { if out[0] == 3u { continue; } a[i] = i; }",
        "for (var i = 0u; i < N; i++) { a[i] = i; i += 1u; }",
        "for (var i = 0u; i < N; i++) { a[i] = 1u; let p = &i; }",
        "for (var i = 0; i < 3; i++) { a[i] = 1u; }",
        // No array of the function's hangs on it.
        "for (var i = 0u; i < N; i++) { out[i] = i; a[0] += i; }",
        "for (var i = N; i > 0u; i--) { a[i] = i; }",
    ] {
        assert_eq!(loops(&unrolled(kept, 1000)), 1, "{kept}");
    }
}

/// Number of accesses to functions' arrays whose index is known only at run time.
fn dynamic_indices(composition: &Composition, budget: u32) -> usize {
    let constants = [&composition.constants[..], &[(UNROLL, budget)]].concat();
    let text = compose(&Shaders::default(), &composition.files, &constants).expect("known files");
    let module = naga::front::wgsl::parse_str(&text)
        .unwrap_or_else(|error| panic!("{composition}\n{}", error.emit_to_string(&text)));
    Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32)
        .validate(&module)
        .unwrap_or_else(|error| panic!("{composition}\n{error:?}"));
    let entry = module.entry_points.iter().map(|entry| &entry.function);
    let others = module.functions.iter().map(|(_, function)| function);
    entry.chain(others).map(dynamic_indices_of).sum()
}

fn dynamic_indices_of(function: &naga::Function) -> usize {
    let is_local = |mut expression: naga::Handle<naga::Expression>| loop {
        match function.expressions[expression] {
            naga::Expression::LocalVariable(_) => return true,
            naga::Expression::Access { base, .. } | naga::Expression::AccessIndex { base, .. } => expression = base,
            _ => return false,
        }
    };
    let dynamic = |(_, expression): &(_, &naga::Expression)| matches!(expression, naga::Expression::Access { base, .. } if is_local(*base));
    function.expressions.iter().filter(dynamic).count()
}

#[test]
fn products_and_attention_index_no_registers_once_written_out() {
    let device = noop();
    // Uses a GPU's plan: with a CPU's, a lane holds more sums than any GPU has registers.
    build_and_record(&device, &gpu_plan(CacheFormat::F16));
    let kernels = ["matmul_rows", "matmul_experts", "matmul_integer", "matmul_tile", "attention"];
    let compositions = device.compositions();
    let compositions = compositions.iter().filter(|composition| kernels.contains(&composition.files[0]));
    let mut dynamic = 0;
    for composition in compositions {
        dynamic += dynamic_indices(composition, 0);
        let left = dynamic_indices(composition, UNROLL_BUDGET);
        // The pairs that attention walks at its end are counted at run time.
        let most = if composition.files[0] == "attention" { 12 } else { 0 };
        assert!(left <= most, "{composition}: {left}");
    }
    assert!(dynamic > 1000, "{dynamic} before");
}
