// The rows of a pass and its output rows. A uniform, since it decides over barriers.
@group(0) @binding(9) var<uniform> batch: array<PassRow, 32>;
