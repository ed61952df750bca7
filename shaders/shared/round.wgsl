// State of a sequence between rounds, by slot. Only `accept` changes it.
struct Session {
    tokens: u32,        // committed tokens, the prompt's included
    target_rows: u32,   // rows in the target's caches that hold committed tokens
    draft_rows: u32,    // likewise the draft's
}

// A sequence's part in a round.
struct Turn {
    slot: u32,         // of its session and its rows of the caches
    first_token: u32,  // start of its tokens
    drafts: u32,       // K
    proposer: u32,     // LOOKED_UP, PARALLEL or SERIAL
}
const LOOKED_UP: u32 = 0u;  // the host knows the proposals, or there are none
const PARALLEL: u32 = 1u;   // one draft pass proposes all K (PARD)
const SERIAL: u32 = 2u;     // K draft passes, one each (VSD)
