// Requested changes to the logits: each token has a bias, and those that are there already count less.
//   l' = l + bias; the lowest number there is, if that is its bias: the token is banned, and stays so
//   l' = l / R if l > 0, else l R, for a token of the prompt or the answer     (Keskar et al. 2019, arXiv:1909.05858)
//   l' = l - P - F n for a token that the answer has n > 0 times               (as OpenAI's API has it)
// Biases come first, as in llama.cpp and Transformers.
// Row r follows proposals d1 .. de that are not committed yet. They count as if they were, so that a row has the bits
// that it would have alone.
//
// Dispatch: x over logits in workgroups of 64, y over rows from first_row on.
struct PenaltiesParams {
    vocab: u32,       // width of a row
    limit: u32,       // logits that may be chosen
    first_row: u32,
    repetition: f32,  // R
    presence: f32,    // P
    frequency: f32,   // F
}
@group(0) @binding(0) var<uniform> params: PenaltiesParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read> session: Session;
@group(0) @binding(3) var<storage, read> logits: array<f32>;              // [rows, vocab]
@group(0) @binding(5) var<storage, read> counts: array<u32>;              // of each id: 2 x times in the answer + in prompt
@group(0) @binding(6) var<storage, read> proposals: array<u32>;           // d1 ..
@group(0) @binding(7) var<storage, read> bias: array<f32>;                // of each id
@group(0) @binding(8) var<storage, read_write> adjusted: array<f32>;      // [rows, vocab]

const LOWEST = -3.4028234e38;

@compute @workgroup_size(64)
fn penalties(@builtin(global_invocation_id) at: vec3<u32>) {
    let index = at.x;
    if index >= params.limit { return; }
    let row = params.first_row + at.y;
    let id = token(index);
    var count = counts[id];
    let uncommitted = step.start + step.first_output + row + 1u - session.tokens;
    for (var i = 0u; i < uncommitted; i++) {
        if proposals[i] == id { count += 2u; }
    }
    var logit = logits[row * params.vocab + index] + bias[id];
    if count > 0u {
        if logit > 0.0 { logit = logit / params.repetition; } else { logit = logit * params.repetition; }
    }
    if count > 1u { logit = fma(-params.frequency, f32(count / 2u), logit - params.presence); }
    if bias[id] == LOWEST { logit = LOWEST; }
    adjusted[row * params.vocab + index] = logit;
}
