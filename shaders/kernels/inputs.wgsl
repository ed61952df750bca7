// The rows of the next forward pass: of each sequence that takes part, the committed tokens that the model has not seen,
// then what is to be tried after them. For row position p: tokens[p] if p is committed, else the draft's mask (PARD) or
// the p-th proposal (VSD, verify).
// PARD, arXiv:2504.18583: n - L known tokens and K - 1 masks; the last known row proposes d1, mask j proposes d(j + 1).
//
// Constants: VERIFY 1 for the target's pass, 0 for the draft's; CHOICES, room for a turn's proposals.
// Dispatch: one workgroup; an invocation a row, and an output.
struct InputsParams {
    rows: u32,        // rows of the pass: at least as many as are needed, surplus rows are harmless
    outputs: u32,
    pass_index: u32,  // index of this pass among the K of a serial draft
    mask: u32,        // the draft's mask token
}
// Row r of the pass is one of a turn's, and output r is one of a turn's.
struct PlannedRow {
    row_turn: u32,
    row_index: u32,
    output_turn: u32,
    output_index: u32,
}
@group(0) @binding(0) var<uniform> params: InputsParams;
@group(0) @binding(1) var<storage, read> plan: array<PlannedRow>;         // [rows], [outputs]
@group(0) @binding(2) var<uniform> turns: array<Turn, 32>;
@group(0) @binding(3) var<storage, read> sessions: array<Session>;        // by slot
@group(0) @binding(4) var<storage, read> tokens: array<u32>;              // committed, prompts included
@group(0) @binding(5) var<storage, read> proposals: array<u32>;           // [turns, CHOICES]: d1 ..
@group(0) @binding(6) var<storage, read_write> step: Step;
@group(0) @binding(7) var<storage, read_write> ids: array<u32>;           // [rows]
@group(0) @binding(8) var<storage, read_write> batch: array<PassRow>;     // [rows], [outputs]

// Position of a turn's first row in this pass.
fn start_of(turn: Turn) -> u32 {
    let session = sessions[turn.slot];
    if VERIFY != 0u { return session.target_rows; }
    if params.pass_index > 0u { return session.tokens - 1u + params.pass_index; }
    return session.draft_rows;
}

@compute @workgroup_size(32)
fn inputs(@builtin(local_invocation_index) lane: u32) {
    let planned = plan[lane];
    if lane < params.rows {
        let turn = turns[planned.row_turn];
        let known = sessions[turn.slot].tokens;
        let position = start_of(turn) + planned.row_index;
        var id = params.mask;
        if position < known {
            id = tokens[turn.first_token + position];
        } else if VERIFY != 0u || turn.proposer != PARALLEL {
            id = proposals[planned.row_turn * CHOICES + position - known];
        }
        ids[lane] = id;
        batch[lane].position = position;
        batch[lane].slot = turn.slot;
    }
    if lane < params.outputs {
        let turn = turns[planned.output_turn];
        let known = sessions[turn.slot].tokens;
        let start = start_of(turn);
        // The last known token's row, or a proposal's in VSD's later passes, gives the first output.
        var output = planned.output_index;
        if start < known { output += known - 1u - start; }
        // Its turn's first row comes before it.
        batch[lane].output = first_row(planned.output_turn) + output;
        batch[lane].choice = planned.output_turn * CHOICES + params.pass_index + planned.output_index;
    }
    if lane == 0u {
        let turn = turns[planned.row_turn];
        step = Step(start_of(turn), params.rows, 0u, params.outputs, turn.slot);
    }
}

// The row of the pass at which a turn begins.
fn first_row(turn: u32) -> u32 {
    var row = 0u;
    while row < params.rows && plan[row].row_turn != turn { row++; }
    return row;
}
