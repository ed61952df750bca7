// Pairs of a row and one of its experts in the order of experts, those of one expert in the order of rows, and groups of up
// to ROWS pairs of one expert. Groups that a dispatch has room for and that do not exist are empty.
//
// Constants: LANES of the workgroup; EXPERTS; TOP experts of a row; ROWS pairs of a group.
// Dispatch: one workgroup.
@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> chosen: array<u32>;                // [rows, TOP]
@group(0) @binding(2) var<storage, read_write> order: array<u32>;           // [pairs]
@group(0) @binding(3) var<storage, read_write> groups: array<ExpertGroup>;

var<workgroup> counts: array<u32, EXPERTS>;

@compute @workgroup_size(LANES)
fn expert_groups(@builtin(local_invocation_index) lane: u32) {
    let pairs = step.rows * TOP;
    for (var expert = lane; expert < EXPERTS; expert += LANES) {
        var count = 0u;
        for (var pair = 0u; pair < pairs; pair++) { count += u32(chosen[pair] == expert); }
        counts[expert] = count;
    }
    workgroupBarrier();
    for (var expert = lane; expert < EXPERTS; expert += LANES) {
        var first = 0u;
        var group = 0u;
        for (var before = 0u; before < expert; before++) {
            first += counts[before];
            group += groups_of(counts[before]);
        }
        var end = first;
        for (var pair = 0u; pair < pairs; pair++) {
            if chosen[pair] == expert {
                order[end] = pair;
                end++;
            }
        }
        for (var at = first; at < end; at += ROWS) {
            groups[group] = ExpertGroup(expert, at, min(ROWS, end - at));
            group++;
        }
    }
    var filled = 0u;
    for (var expert = 0u; expert < EXPERTS; expert++) { filled += groups_of(counts[expert]); }
    for (var group = filled + lane; group < min(pairs, EXPERTS + pairs / ROWS); group += LANES) {
        groups[group] = ExpertGroup(0u, 0u, 0u);
    }
}

fn groups_of(count: u32) -> u32 { return (count + ROWS - 1u) / ROWS; }
