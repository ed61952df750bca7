// Rows of an interleaved matrix become the rows of another: gathered[r] = source[ids[r]]. Bits are copied, whatever they
// stand for; the row scales of cooperative products are a matrix whose rows are one piece of one word.
// Of matrices in parts, a dispatch copies what one part of the source has for one part of the result.
//
// Constants: WORDS, 32-bit words of a piece; LANES.
// Dispatch: x and y over the pieces of the result, in workgroups of 64.
struct GatherParams {
    pieces: u32,        // pieces of a row
    rows_out: u32,      // rows of this part of the result
    source_first: u32,  // the source part's first row
    source_rows: u32,   // rows of the source part
}
@group(0) @binding(0) var<uniform> params: GatherParams;
@group(0) @binding(1) var<storage, read> ids: array<u32>;                 // [rows_out]
@group(0) @binding(2) var<storage, read> source: array<u32>;
@group(0) @binding(3) var<storage, read_write> gathered: array<u32>;

@compute @workgroup_size(64)
fn gather(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.x + group.y * groups.x) * 64u + lane;
    let block = at / LANES / params.pieces;
    let piece = at / LANES % params.pieces;
    let row = block * LANES + at % LANES;
    if row >= params.rows_out { return; }
    let id = ids[row];
    if id < params.source_first || id - params.source_first >= params.source_rows { return; }
    let from_row = id - params.source_first;
    let start = ((from_row / LANES * params.pieces + piece) * LANES + from_row % LANES) * WORDS;
    for (var word = 0u; word < WORDS; word++) {
        gathered[at * WORDS + word] = source[start + word];
    }
}
