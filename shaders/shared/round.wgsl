// State of a session between rounds. Only `accept` changes it.
struct Session {
    tokens: u32,        // committed tokens, the prompt's included
    target_rows: u32,   // rows in the target's caches that hold committed tokens
    draft_rows: u32,    // likewise the draft's
}

// One round's constants. A draft of `drafts` tokens; a parallel one reads `mask` where it knows no token.
struct RoundParams {
    drafts: u32,        // K
    mask: u32,
    parallel: u32,      // 1: one draft pass proposes all K (PARD); 0: K passes, one each (VSD)
    pass_index: u32,    // index of this pass among the K
    rows: u32,          // rows to feed: at least as many as are needed, surplus rows are harmless
    slot: u32,          // slot of the caches
}
