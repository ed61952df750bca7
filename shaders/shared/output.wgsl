// An output row of a pass: its sequence, and the token that it chooses.
fn output_slot(output: u32) -> u32 { return batch[batch[output].output].slot; }
fn output_turn(output: u32) -> u32 { return batch[output].choice / CHOICES; }
// A row's token stands one position further on.
fn output_position(output: u32) -> u32 { return batch[batch[output].output].position + 1u; }
