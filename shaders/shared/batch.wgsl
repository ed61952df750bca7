// The rows of a batch's pass, each of another sequence.
struct BatchRow {
    position: u32,
    slot: u32,         // slot of the caches
    seed: u32,         // seed of the noise that its token is drawn by
    temperature: f32,  // 0: the likeliest token is taken
}
// A uniform, since it decides over barriers.
@group(0) @binding(9) var<uniform> batch: array<BatchRow, 32>;
