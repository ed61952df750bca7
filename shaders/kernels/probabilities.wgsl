// Probability of drawing each token: softmax(l / T) over the tokens that are kept, 0 for all others.
//
// Only a sequence that has the pass to itself is accepted by its chances, so that its turn is the first.
//
// Dispatch: one workgroup per row, from first_row on.
struct ProbabilitiesParams {
    vocab: u32,  // width of a row of logits
    limit: u32,  // logits that may be chosen
    first_row: u32,
    width: u32,  // width of a row of probabilities, which are by id
}
@group(0) @binding(0) var<uniform> params: ProbabilitiesParams;
@group(0) @binding(1) var<storage, read> logits: array<f32>;              // [rows, vocab]
@group(0) @binding(2) var<storage, read_write> chances: array<f32>;       // [choices, width], by batch[row].choice

const LANES: u32 = 256u;

// exp((l - max) / T), where the exponent is so small that it is 0 all the same without an overflow.
fn weight(row: u32, logit: f32, largest: f32) -> f32 {
    if !is_kept(row, logit) { return 0.0; }
    let temperature = sampling[output_turn(row)].temperature;
    return exp(max(logit - largest, -100.0 * temperature) / temperature);
}

@compute @workgroup_size(LANES)
fn probabilities(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = params.first_row + group.x;
    let first = row * params.vocab;
    var largest = LOWEST;
    for (var i = lane; i < params.limit; i += LANES) { largest = max(largest, logits[first + i]); }
    largest = largest_of(lane, largest);
    var sum = 0.0;
    for (var i = lane; i < params.limit; i += LANES) { sum += weight(row, logits[first + i], largest); }
    sum = total(lane, sum);
    let out = batch[row].choice * params.width;
    for (var i = lane; i < params.limit; i += LANES) {
        chances[out + token(i)] = weight(row, logits[first + i], largest) / sum;
    }
}
