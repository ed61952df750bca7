// Rows stand where the step says.
fn source_of(row: u32) -> u32 { return select(row, step.first_output + row, OUTPUT_ROWS != 0u); }
