// Ends a round: of d1..dK, as many are accepted as agree with the target's own choices t0..tK, and t after the last
// agreeing one is committed with them. Leviathan et al. 2023, arXiv:2211.17192, for greedy decoding:
//   m = the largest m with t[i] = d[i + 1] for all i < m;  commit t0 .. tm.
//
// Constants: CHOICES, room for a turn's proposals and choices; RECORD, words of a turn's record.
// Dispatch: an invocation a turn; K is at most 16.
@group(0) @binding(0) var<uniform> turns: array<Turn, 32>;
@group(0) @binding(1) var<storage, read> proposals: array<u32>;           // [turns, CHOICES]: d1 ..
@group(0) @binding(2) var<storage, read> choices: array<u32>;             // [turns, CHOICES]: t0 ..
@group(0) @binding(3) var<storage, read_write> sessions: array<Session>;  // by slot
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(5) var<storage, read_write> record: array<u32>;        // [turns, RECORD]: how many, and which

@compute @workgroup_size(1)
fn accept(@builtin(workgroup_id) group: vec3<u32>) {
    let turn = turns[group.x];
    let first = group.x * CHOICES;
    let reported = group.x * RECORD;
    var accepted = 0u;
    while accepted < turn.drafts && choices[first + accepted] == proposals[first + accepted] { accepted++; }
    let known = sessions[turn.slot].tokens;
    record[reported] = accepted + 1u;
    for (var i = 0u; i <= accepted; i++) {
        tokens[turn.first_token + known + i] = choices[first + i];
        record[reported + 1u + i] = choices[first + i];
    }
    sessions[turn.slot].tokens = known + accepted + 1u;
    // The target has seen everything committed but the newest token; rows of rejected proposals are overwritten.
    sessions[turn.slot].target_rows = known + accepted;
    // A draft that proposed nothing has read nothing.
    if turn.drafts == 0u { return; }
    if turn.proposer == PARALLEL {
        // The draft forgets its mask rows.
        sessions[turn.slot].draft_rows = known;
    } else if turn.proposer == SERIAL {
        // An autoregressive draft has seen d1 .. d(K - 1), of which `accepted` at most are committed.
        sessions[turn.slot].draft_rows = min(known + turn.drafts - 1u, known + accepted);
    }
}
