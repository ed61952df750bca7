// Pairs of a row and one of its experts in the order of experts, those of one expert in the order of rows, and groups of up
// to ROWS pairs of one expert. Groups that a dispatch has room for and that do not exist are empty.
//
// Constants: LANES of the workgroup, a power of two; EXPERTS; TOP experts of a row; ROWS pairs of a group.
// Dispatch: one workgroup.
@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> chosen: array<u32>;                // [rows, TOP]
@group(0) @binding(2) var<storage, read_write> order: array<u32>;           // [pairs]
@group(0) @binding(3) var<storage, read_write> groups: array<ExpertGroup>;

const EACH: u32 = (EXPERTS + LANES - 1u) / LANES;       // neighbouring experts that a lane looks for
const VECTORS: u32 = 256u;                              // of four choices, which all lanes look through at a time
var<workgroup> choices: array<vec4<u32>, VECTORS>;
var<workgroup> sums: array<vec2<u32>, LANES>;           // pairs and groups of the lanes up to one

@compute @workgroup_size(LANES)
fn expert_groups(@builtin(local_invocation_index) lane: u32) {
    let pairs = step.rows * TOP;
    var counts: array<u32, EACH>;
    for (var first = 0u; first < pairs; first += 4u * VECTORS) {
        let vectors = read_choices(lane, first, pairs);
        for (var e = 0u; e < EACH; e++) {
            var found = vec4(0u);
            for (var v = 0u; v < vectors; v++) {
                found += select(vec4(0u), vec4(1u), choices[v] == vec4(lane * EACH + e));
            }
            counts[e] += found.x + found.y + found.z + found.w;
        }
    }
    var own = vec2(0u);
    for (var e = 0u; e < EACH; e++) { own += vec2(counts[e], groups_of(counts[e])); }
    sums[lane] = own;
    for (var far = 1u; far < LANES; far *= 2u) {
        workgroupBarrier();
        var before = vec2(0u);
        if lane >= far { before = sums[lane - far]; }
        workgroupBarrier();
        sums[lane] += before;
    }
    workgroupBarrier();

    let begin = sums[lane] - own;
    var ends: array<u32, EACH>;
    var end = begin.x;
    var group = begin.y;
    for (var e = 0u; e < EACH; e++) {
        ends[e] = end;
        for (var at = 0u; at < counts[e]; at += ROWS) {
            groups[group] = ExpertGroup(lane * EACH + e, end + at, min(ROWS, counts[e] - at));
            group++;
        }
        end += counts[e];
    }
    for (var none = sums[LANES - 1u].y + lane; none < min(pairs, EXPERTS + pairs / ROWS); none += LANES) {
        groups[none] = ExpertGroup(0u, 0u, 0u);
    }
    for (var first = 0u; first < pairs; first += 4u * VECTORS) {
        let vectors = read_choices(lane, first, pairs);
        for (var e = 0u; e < EACH; e++) {
            for (var v = 0u; v < vectors; v++) {
                let found = choices[v] == vec4(lane * EACH + e);
                for (var i = 0u; i < 4u; i++) {
                    if found[i] {
                        order[ends[e]] = first + 4u * v + i;
                        ends[e]++;
                    }
                }
            }
        }
    }
}

// Puts the choices from `first` on into workgroup memory, as many as it holds; returns how many vectors they are. Past the
// end is no expert.
fn read_choices(lane: u32, first: u32, pairs: u32) -> u32 {
    let vectors = min(VECTORS, (pairs - first + 3u) / 4u);
    workgroupBarrier();
    for (var v = lane; v < vectors; v += LANES) {
        var four = vec4(EACH * LANES);
        for (var i = 0u; i < 4u; i++) {
            let pair = first + 4u * v + i;
            if pair < pairs { four[i] = chosen[pair]; }
        }
        choices[v] = four;
    }
    workgroupBarrier();
    return vectors;
}

fn groups_of(count: u32) -> u32 { return (count + ROWS - 1u) / ROWS; }
