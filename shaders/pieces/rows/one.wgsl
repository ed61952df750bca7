// All rows are of one sequence, one position after the other.
fn position_of(row: u32) -> u32 { return step.start + row; }
fn slot_of(row: u32) -> u32 { return step.slot; }
