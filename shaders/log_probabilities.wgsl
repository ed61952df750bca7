// Log-probability of each row's token, and the likeliest tokens of each row:
//   log p(i) = l(i) - max(l) - log(sum over j of exp(l(j) - max(l))).
// The likeliest are found one after the other, each the largest of those that come after the one before it, in descending
// order of logits and of equals in ascending order of ids.
//
// Dispatch: one workgroup per row.
struct LogProbabilitiesParams {
    vocab: u32,       // width of a row
    limit: u32,       // logits of tokens that may be chosen
    first_word: u32,  // start of log-probabilities in the record
    words: u32,       // words of a row there
}
@group(0) @binding(0) var<uniform> params: LogProbabilitiesParams;
@group(0) @binding(1) var<storage, read> logits: array<f32>;              // [rows, vocab]
// From first_word on [rows, words]: bits of log p of the row's token, then of each of the likeliest its id and the bits of
// its log p, as many as the row's turn asks for.
@group(0) @binding(2) var<storage, read_write> record: array<u32>;
@group(0) @binding(3) var<storage, read> choices: array<u32>;             // by batch[row].choice

const LANES: u32 = 256u;
const LOWEST = -3.4028234e38;

var<workgroup> lane_value: array<f32, LANES>;
var<workgroup> lane_index: array<u32, LANES>;
var<workgroup> found_value: f32;
var<workgroup> found_index: u32;
var<workgroup> own_logit: f32;

@compute @workgroup_size(256)
fn log_probabilities(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x;
    let wanted = sampling[output_turn(row)].logprobs;
    if wanted == 0u { return; }
    let top = wanted - 1u;
    let first = row * params.vocab;
    let words = params.first_word + row * params.words;
    var largest = LOWEST;
    var previous_value = LOWEST;
    var previous_index = 0u;
    for (var rank = 0u; rank < max(top, 1u); rank++) {
        var value = LOWEST;
        var index = params.limit;
        for (var i = lane; i < params.limit; i += LANES) {
            let logit = logits[first + i];
            let comes_after = rank == 0u || logit < previous_value || (logit == previous_value && i > previous_index);
            // Ids ascend, so that the first of equals stays.
            if comes_after && (logit > value || index == params.limit) { value = logit; index = i; }
        }
        lane_value[lane] = value;
        lane_index[lane] = index;
        workgroupBarrier();
        if lane == 0u {
            for (var other = 1u; other < LANES; other++) {
                let other_value = lane_value[other];
                let other_index = lane_index[other];
                if other_index == params.limit { continue; }
                let wins = index == params.limit || other_value > value || (other_value == value && other_index < index);
                if wins { value = other_value; index = other_index; }
            }
            found_value = value;
            found_index = index;
        }
        workgroupBarrier();
        previous_value = found_value;
        previous_index = found_index;
        if rank == 0u { largest = previous_value; }
        if lane == 0u && rank < top {
            record[words + 1u + 2u * rank] = token(previous_index);
            record[words + 2u + 2u * rank] = bitcast<u32>(previous_value);
        }
        workgroupBarrier();
    }
    let own = choices[batch[row].choice];
    var sum = 0.0;
    for (var i = lane; i < params.limit; i += LANES) {
        let logit = logits[first + i];
        sum += exp(logit - largest);
        if token(i) == own { own_logit = logit; }
    }
    lane_value[lane] = sum;
    workgroupBarrier();
    if lane == 0u {
        var total = 0.0;
        for (var other = 0u; other < LANES; other++) { total += lane_value[other]; }
        let log_total = log(total);
        record[words] = bitcast<u32>(own_logit - largest - log_total);
        for (var rank = 0u; rank < top; rank++) {
            let word = words + 2u + 2u * rank;
            record[word] = bitcast<u32>(bitcast<f32>(record[word]) - largest - log_total);
        }
    }
}
