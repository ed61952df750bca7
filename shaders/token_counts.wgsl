// Counts the tokens that a round committed.
//
// Dispatch: one invocation; a round commits at most 17.
@group(0) @binding(0) var<storage, read> record: array<u32>;              // [1 + tokens]: how many, and which
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;        // of each id: 2 x times in the answer + in prompt

@compute @workgroup_size(1)
fn token_counts() {
    for (var i = 0u; i < record[0]; i++) { counts[record[1u + i]] += 2u; }
}
