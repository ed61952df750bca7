// Turn `turn` of a matrix's rows.
//
// Constants: ROWS of a turn; OUTPUT_ROWS 1 if rows are `outputs`.
fn turn_of(turn: u32) -> RowTurn {
    var rows = step.rows;
    if OUTPUT_ROWS != 0u { rows = step.outputs; }
    let first = turn * ROWS;
    // A turn past the last row has none.
    return RowTurn(first, max(rows, first) - first, 0u);
}

fn output_row(turn: RowTurn, m: u32) -> u32 { return turn.first + m; }
