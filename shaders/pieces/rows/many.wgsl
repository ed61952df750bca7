// Rows of several sequences: shared/pass_row says where each is.
fn position_of(row: u32) -> u32 { return batch[row].position; }
fn slot_of(row: u32) -> u32 { return batch[row].slot; }
