// Visibility of one row of a packed training step: the rows that it sees and those that see it, two ranges each.
struct TrainingRow {
    context_first: u32,  // it sees the rows context_first .. context_end: its sample's real tokens; a real row is the last
    context_end: u32,
    chain_first: u32,    // and chain_first ..= itself: its own chain's masks; a real row has none: row + 1
    real_first: u32,     // it is seen by real_first .. real_end: real rows; for a mask, those of its chain from itself on
    real_end: u32,
    later_first: u32,    // and by later_first .. later_end: the masks of all chains that hang at it or after it
    later_end: u32,
    position: u32,
}
