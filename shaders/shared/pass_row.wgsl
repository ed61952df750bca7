// A row of a pass over several sequences, and an output row: one whose next token is wanted.
struct PassRow {
    position: u32,  // of row r in its sequence
    slot: u32,      // slot of row r's sequence
    output: u32,    // the row that output r is computed from
    choice: u32,    // index of output r's choice: CHOICES * turn + its index among the turn's
}
