// Requested changes to the logits: each token has a bias, and those that are there already count less.
//   l' = l + bias; the lowest number there is, if that is its bias: the token is banned, and stays so
//   l' = l / R if l > 0, else l R, for a token of the prompt or the answer     (Keskar et al. 2019, arXiv:1909.05858)
//   l' = l - P - F n for a token that the answer has n > 0 times               (as OpenAI's API has it)
// Biases come first, as in llama.cpp and Transformers.
// Row r follows proposals d1 .. de that are not committed yet. They count as if they were, so that a row has the bits
// that it would have alone. Rows whose turn asks for no changes keep their logits.
//
// Constants: CHOICES, room for a turn's proposals.
// Dispatch: x over logits in workgroups of 64, y over rows from first_row on.
struct PenaltiesParams {
    vocab: u32,       // width of a row
    limit: u32,       // logits that may be chosen
    first_row: u32,
    ids: u32,         // tokens of the vocabulary
}
@group(0) @binding(0) var<uniform> params: PenaltiesParams;
@group(0) @binding(2) var<storage, read> sessions: array<Session>;        // by slot
@group(0) @binding(3) var<storage, read> logits: array<f32>;              // [rows, vocab]
@group(0) @binding(5) var<storage, read> counts: array<u32>;              // [slots, ids]: 2 x times in the answer + in prompt
@group(0) @binding(6) var<storage, read> proposals: array<u32>;           // [turns, CHOICES]: d1 ..
@group(0) @binding(7) var<storage, read> bias: array<f32>;                // [slots, ids]
@group(0) @binding(8) var<storage, read_write> adjusted: array<f32>;      // [rows, vocab]

@compute @workgroup_size(64)
fn penalties(@builtin(global_invocation_id) at: vec3<u32>) {
    let index = at.x;
    if index >= params.limit { return; }
    let row = params.first_row + at.y;
    let at_logit = row * params.vocab + index;
    let turn = output_turn(row);
    let terms = sampling[turn];
    if (terms.changes & 3u) == 0u {
        adjusted[at_logit] = logits[at_logit];
        return;
    }
    let slot = output_slot(row);
    let id = token(index);
    let of_slot = slot * params.ids + id;
    var count = counts[of_slot];
    let uncommitted = output_position(row) - sessions[slot].tokens;
    for (var i = 0u; i < uncommitted; i++) {
        if proposals[turn * CHOICES + i] == id { count += 2u; }
    }
    var logit = logits[at_logit] + bias[of_slot];
    if count > 0u {
        if logit > 0.0 { logit = logit / terms.repetition; } else { logit = logit * terms.repetition; }
    }
    if count > 1u { logit = fma(-terms.frequency, f32(count / 2u), logit - terms.presence); }
    if bias[of_slot] == LOWEST { logit = LOWEST; }
    adjusted[at_logit] = logit;
}
