// Each row is of a sequence of its own.
fn position_of(row: u32) -> u32 { return batch[row].position; }
fn slot_of(row: u32) -> u32 { return batch[row].slot; }
