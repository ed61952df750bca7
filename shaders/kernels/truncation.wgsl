// The lowest logit of each row that may still be drawn: the highest of
//   top-k: the k-th largest logit;
//   top-p: the largest t such that tokens with logits from t on have p of what softmax(l / T) gives those that top-k left
//          (Holtzman et al. 2019, arXiv:1904.09751);
//   min-p: a p-th of the likeliest token's probability, max(l) + T log p (Nguyen et al. 2024, arXiv:2407.01082).
// Equals stay or go together.
//
// There is no sort: the bits of the threshold are found eight at a time, by a histogram of those logits whose higher bits
// agree. A token's weight is rounded to an integer, of which sums are exact in any order: the result depends neither on
// the adapter's scheduling nor on other rows.
//
// Constants: BITS, bits of a word of a weight, such that as many words as there are tokens sum up in 32 bits.
// Dispatch: one workgroup per row, from first_row on.
struct TruncationParams {
    vocab: u32,  // width of a row
    limit: u32,  // logits that may be chosen
    first_row: u32,
}
@group(0) @binding(0) var<uniform> params: TruncationParams;
@group(0) @binding(1) var<storage, read> logits: array<f32>;              // [rows, vocab]
@group(0) @binding(2) var<storage, read_write> thresholds: array<f32>;    // [rows]

const DIGITS: u32 = 256u;
const LANES: u32 = DIGITS;
const MASK: u32 = (1u << BITS) - 1u;

// An integer in two words, high x 2^BITS + low, low < 2^BITS.
struct Mass { high: u32, low: u32 }

fn plus(a: Mass, b: Mass) -> Mass {
    let low = a.low + b.low;
    return Mass(a.high + b.high + (low >> BITS), low & MASK);
}

fn minus(a: Mass, b: Mass) -> Mass {
    let borrow = select(0u, 1u, a.low < b.low);
    return Mass(a.high - b.high - borrow, a.low + (borrow << BITS) - b.low);
}

fn is_less(a: Mass, b: Mass) -> bool {
    return a.high < b.high || (a.high == b.high && a.low < b.low);
}

// p of `total`, but no more than all of it and no less than the least there is.
fn share(p: f32, total: Mass) -> Mass {
    let words = p * fma(f32(total.high), f32(1u << BITS), f32(total.low));
    let high = min(u32(words / f32(1u << BITS)), total.high);
    let low = min(u32(max(words - f32(high) * f32(1u << BITS), 0.0)), MASK);
    var part = Mass(high, low);
    if part.high == 0u { part.low = max(part.low, 1u); }
    if is_less(total, part) { return total; }
    return part;
}

// Integers in the order of the numbers, and back.
fn key_of(number: f32) -> u32 {
    let bits = bitcast<u32>(number);
    return select(~bits, bits | 0x80000000u, bits < 0x80000000u);
}

fn number_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

var<workgroup> highs: array<atomic<u32>, DIGITS>;
var<workgroup> lows: array<atomic<u32>, DIGITS>;
var<workgroup> found: u32;
var<workgroup> wanted: Mass;

// Weight of the token in the search: 1 if tokens are counted, else exp((l - max) / T) in units of 2^-(2 BITS).
fn mass(logit: f32, largest: f32, temperature: f32, counted: bool) -> Mass {
    if counted { return Mass(0u, 1u); }
    // Bounded where the exponential is 0 anyway, so that nothing overflows.
    let exponent = max(logit - largest, -100.0 * temperature) / temperature;
    let words = exp(exponent) * f32(1u << BITS);
    let high = min(u32(words), MASK);
    return Mass(high, min(u32((words - f32(high)) * f32(1u << BITS)), MASK));
}

// The largest t such that the logits from t on weigh `top_k`, or `top_p` of those from `lowest` on.
fn search(row: u32, lane: u32, lowest: f32, largest: f32, counted: bool) -> f32 {
    let terms = sampling[output_turn(row)];
    for (var shift = 32u; shift > 0u; ) {
        shift -= 8u;
        atomicStore(&highs[lane], 0u);
        atomicStore(&lows[lane], 0u);
        workgroupBarrier();
        // The bits that are known; a shift by 32 has no meaning.
        let known = found;
        for (var i = lane; i < params.limit; i += DIGITS) {
            let logit = logits[row * params.vocab + i];
            let key = key_of(logit);
            if logit < lowest || (shift < 24u && (key >> (shift + 8u)) != known) { continue; }
            let weight = mass(logit, largest, terms.temperature, counted);
            let digit = (key >> shift) & 255u;
            if weight.high > 0u { atomicAdd(&highs[digit], weight.high); }
            atomicAdd(&lows[digit], weight.low);
        }
        workgroupBarrier();
        if lane == 0u {
            var target_mass = wanted;
            if shift == 24u {
                target_mass = Mass(terms.top_k >> BITS, terms.top_k & MASK);
                if !counted {
                    var total = Mass(0u, 0u);
                    for (var digit = 0u; digit < DIGITS; digit++) { total = plus(total, of_digit(digit)); }
                    target_mass = share(terms.top_p, total);
                }
            }
            var above = Mass(0u, 0u);
            var digit = DIGITS;
            var reached = false;
            while !reached && digit > 0u {
                digit -= 1u;
                let sum = plus(above, of_digit(digit));
                reached = !is_less(sum, target_mass);
                if !reached { above = sum; }
            }
            wanted = minus(target_mass, above);
            // The first digit drops the result of an earlier search.
            found = select((found << 8u) | digit, digit, shift == 24u);
        }
        workgroupBarrier();
    }
    return number_of(found);
}

fn of_digit(digit: u32) -> Mass {
    let low = atomicLoad(&lows[digit]);
    return Mass(atomicLoad(&highs[digit]) + (low >> BITS), low & MASK);
}

@compute @workgroup_size(LANES)
fn truncation(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = params.first_row + group.x;
    var largest = LOWEST;
    for (var i = lane; i < params.limit; i += DIGITS) { largest = max(largest, logits[row * params.vocab + i]); }
    largest = largest_of(lane, largest);
    var threshold = LOWEST;
    let terms = sampling[output_turn(row)];
    if terms.top_k > 0u { threshold = search(row, lane, LOWEST, largest, true); }
    if terms.top_p < 1.0 { threshold = max(threshold, search(row, lane, threshold, largest, false)); }
    if lane == 0u { thresholds[row] = max(threshold, largest + terms.min_p_gap); }
}
