// The token that a logit is of: its index is the id.
fn token(index: u32) -> u32 { return index; }
