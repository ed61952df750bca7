// Output rows of a pass, which shared/pass_row lists.
fn source_of(row: u32) -> u32 { return batch[row].output; }
