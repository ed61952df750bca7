// Input of one forward pass. Written on the GPU by `inputs`, or by the host for a prompt.
struct Step {
    start: u32,         // position of row 0, which is also the number of rows in the caches
    rows: u32,          // rows of this pass
    first_output: u32,  // the first row whose next token is wanted
    outputs: u32,       // number of rows from there on that are wanted
    slot: u32,          // slot of the caches, if all rows are of one sequence
}
