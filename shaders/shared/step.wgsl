// What one forward pass works on. Written on the GPU by `inputs`, or by the host for a prompt.
struct Step {
    start: u32,         // position of row 0, which is also the number of rows in the caches
    rows: u32,          // rows of this pass
    first_output: u32,  // the first row whose next token is wanted
    outputs: u32,       // how many rows from there on are wanted
    first_choice: u32,  // where their choices go
    slot: u32,          // of the caches, where all rows are of one sequence
}
