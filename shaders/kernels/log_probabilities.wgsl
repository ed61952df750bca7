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

var<workgroup> own_logit: f32;

@compute @workgroup_size(LANES)
fn log_probabilities(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x;
    let wanted = sampling[output_turn(row)].logprobs;
    if wanted == 0u { return; }
    let top = wanted - 1u;
    let first = row * params.vocab;
    let words = params.first_word + row * params.words;
    // A token that may not be chosen has none.
    if lane == 0u { own_logit = LOWEST; }
    var largest = LOWEST;
    var previous = Highest(LOWEST, 0u);
    for (var rank = 0u; rank < max(top, 1u); rank++) {
        // A lane without a logit ends at an index past all others.
        var highest = Highest(LOWEST, params.limit);
        for (var i = lane; i < params.limit; i += LANES) {
            let logit = logits[first + i];
            let comes_after = rank == 0u || logit < previous.value || (logit == previous.value && i > previous.index);
            // Ids ascend, so that the first of equals stays.
            if comes_after && (logit > highest.value || highest.index == params.limit) { highest = Highest(logit, i); }
        }
        previous = highest_of(lane, highest);
        if rank == 0u { largest = previous.value; }
        if lane == 0u && rank < top {
            record[words + 1u + 2u * rank] = token(previous.index);
            record[words + 2u + 2u * rank] = bitcast<u32>(previous.value);
        }
    }
    let own = choices[batch[row].choice];
    var sum = 0.0;
    for (var i = lane; i < params.limit; i += LANES) {
        let logit = logits[first + i];
        sum += exp(logit - largest);
        if token(i) == own { own_logit = logit; }
    }
    let log_total = log(total(lane, sum));
    if lane == 0u {
        record[words] = bitcast<u32>(own_logit - largest - log_total);
        for (var rank = 0u; rank < top; rank++) {
            let word = words + 2u + 2u * rank;
            record[word] = bitcast<u32>(bitcast<f32>(record[word]) - largest - log_total);
        }
    }
}
