// Ends a round: of d1..dK, as many are accepted as agree with the target's own choices t0..tK, and t after the last
// agreeing one is committed with them. Leviathan et al. 2023, arXiv:2211.17192, for greedy decoding:
//   m = the largest m with t[i] = d[i + 1] for all i < m;  commit t0 .. tm.
//
// Dispatch: one invocation; K is at most 16.
@group(0) @binding(0) var<uniform> params: RoundParams;
@group(0) @binding(1) var<storage, read> proposals: array<u32>;           // d1 ..
@group(0) @binding(2) var<storage, read> choices: array<u32>;             // t0 ..
@group(0) @binding(3) var<storage, read_write> session: Session;
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(5) var<storage, read_write> record: array<u32>;        // [1 + tokens]: how many, and which

@compute @workgroup_size(1)
fn accept() {
    var accepted = 0u;
    while accepted < params.drafts && choices[accepted] == proposals[accepted] { accepted++; }
    let known = session.tokens;
    record[0] = accepted + 1u;
    for (var i = 0u; i <= accepted; i++) {
        tokens[known + i] = choices[i];
        record[1u + i] = choices[i];
    }
    session.tokens = known + accepted + 1u;
    // The target has seen everything committed but the newest token; rows of rejected proposals are overwritten.
    session.target_rows = known + accepted;
    // A draft that proposed nothing has read nothing.
    if params.drafts == 0u { return; }
    if params.parallel != 0u {
        // The draft forgets its mask rows.
        session.draft_rows = known;
    } else {
        // An autoregressive draft has seen d1 .. d(K - 1), of which `accepted` at most are committed.
        session.draft_rows = min(known + params.drafts - 1u, known + accepted);
    }
}
