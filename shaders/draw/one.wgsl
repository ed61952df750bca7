// Rows of one sequence: they stand one after the other and share its seed.
struct DrawParams {
    temperature: f32,
    seed: u32,         // names the sequence's noise
}
@group(0) @binding(5) var<uniform> step: Step;
@group(0) @binding(6) var<uniform> sequence: DrawParams;

// A row's token stands one position further on.
fn draw(row: u32) -> Draw {
    return Draw(sequence.temperature, sequence.seed, step.start + step.first_output + row + 1u);
}
