// Counts the tokens that a round committed, for the sequences that ask for it.
//
// Constants: RECORD, words of a turn's record.
// Dispatch: an invocation a turn; a turn commits at most 17.
struct TokenCountsParams { ids: u32 }                                     // tokens of the vocabulary
@group(0) @binding(0) var<uniform> params: TokenCountsParams;
@group(0) @binding(1) var<uniform> turns: array<Turn, 32>;
@group(0) @binding(2) var<storage, read> record: array<u32>;              // [turns, RECORD]: how many, and which
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;        // [slots, ids]: 2 x times in the answer + in prompt

@compute @workgroup_size(1)
fn token_counts(@builtin(workgroup_id) group: vec3<u32>) {
    if (sampling[group.x].changes & 2u) == 0u { return; }
    let first = turns[group.x].slot * params.ids;
    let reported = group.x * RECORD;
    for (var i = 0u; i < record[reported]; i++) { counts[first + record[reported + 1u + i]] += 2u; }
}
