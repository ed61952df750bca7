// The slice of an invocation, where subgroups are missing or might hold several slices.
fn slice_of(local_y: u32) -> u32 { return local_y; }
