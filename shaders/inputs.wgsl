// The rows of the next forward pass: the committed tokens the model has not seen, then what is to be tried after them.
// For row position p: tokens[p] if p is committed, else the draft's mask (PARD) or the p-th proposal (VSD, verify).
// PARD, arXiv:2504.18583: n - L known tokens and K - 1 masks; the last known row proposes d1, mask j proposes d(j + 1).
//
// Constants: VERIFY 1 for the target's pass, 0 for the draft's.
// Dispatch: one workgroup; an invocation a row.
@group(0) @binding(0) var<uniform> params: RoundParams;
@group(0) @binding(1) var<storage, read> session: Session;
@group(0) @binding(2) var<storage, read> tokens: array<u32>;              // committed, the prompt's included
@group(0) @binding(3) var<storage, read> proposals: array<u32>;           // d1 ..
@group(0) @binding(4) var<storage, read_write> step: Step;
@group(0) @binding(5) var<storage, read_write> ids: array<u32>;           // [rows]

@compute @workgroup_size(64)
fn inputs(@builtin(local_invocation_index) row: u32) {
    let known = session.tokens;
    var start = session.target_rows;
    var outputs = params.drafts + 1u;
    if VERIFY == 0u {
        start = session.draft_rows;
        outputs = params.drafts;
        if params.parallel == 0u {
            outputs = 1u;
            if params.pass_index > 0u { start = known - 1u + params.pass_index; }
        }
    }
    if row < params.rows {
        let position = start + row;
        if position < known {
            ids[row] = tokens[position];
        } else if VERIFY == 0u && params.parallel != 0u {
            ids[row] = params.mask;
        } else {
            ids[row] = proposals[position - known];
        }
    }
    if row == 0u {
        // The last known token's row, or a proposal's in VSD's later passes, gives the first output.
        var first = 0u;
        if start < known { first = known - 1u - start; }
        step = Step(start, params.rows, first, outputs, params.pass_index, params.slot);
    }
}
