// The rows of a pass and its output rows. A uniform, since it decides over barriers.
@group(0) @binding(AT_BATCH) var<uniform> batch: array<PassRow, 32>;
