// The slice of an invocation, one for its whole subgroup: LANES is a multiple of the subgroup's size. Compilers then know
// that all lanes read the same x, and load it once.
fn slice_of(local_y: u32) -> u32 { return subgroupBroadcastFirst(local_y); }
