// The gradient of embedding's table: row ids[k] of it += the sum of dx over the rows that read it, which are
// rows[firsts[k] .. firsts[k + 1]]. Eight slices of that list are summed side by side and merged in order, since one id,
// the mask's, may have most of the rows.
//
// Constants: LANES rows of the table that lie interleaved.
// Dispatch: x over runs of 8 pieces of 4, y over ids.
struct EmbeddingGradientParams {
    pieces: u32,     // width / 4
    rows_out: u32,   // rows in this part of the table
    first_out: u32,  // the part's first row
}
@group(0) @binding(0) var<uniform> params: EmbeddingGradientParams;
@group(0) @binding(1) var<storage, read> ids: array<u32>;                 // each at most once
@group(0) @binding(2) var<storage, read> firsts: array<u32>;              // one more than ids
@group(0) @binding(3) var<storage, read> rows: array<u32>;
@group(0) @binding(4) var<storage, read> dx: array<vec4<f32>>;            // [rows, width]
@group(0) @binding(5) var<storage, read_write> dtable: array<vec4<f32>>;  // as the table, in f32

var<workgroup> gathered: array<array<vec4<f32>, 8>, 8>;

@compute @workgroup_size(8, 8)
fn embedding_gradient(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let piece = group.x * 8u + local.x;
    let slice = local.y;
    let id = ids[group.y];
    let is_here = piece < params.pieces && id >= params.first_out && id - params.first_out < params.rows_out;
    if is_here {
        var sum = vec4(0.0);
        let end = firsts[group.y + 1u];
        for (var i = firsts[group.y] + slice; i < end; i += 8u) { sum += dx[rows[i] * params.pieces + piece]; }
        gathered[slice][local.x] = sum;
    }
    workgroupBarrier();
    if is_here && slice == 0u {
        var sum = gathered[0][local.x];
        for (var other = 1u; other < 8u; other++) { sum += gathered[other][local.x]; }
        let row = id - params.first_out;
        // Interleaved are pieces of 8, two of ours.
        let eight = ((row / LANES) * (params.pieces / 2u) + piece / 2u) * LANES + row % LANES;
        dtable[2u * eight + piece % 2u] += sum;
    }
}
