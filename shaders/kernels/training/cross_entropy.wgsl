// The loss of each row and, in place of its logits, the loss's gradient:
//   weight * (softmax(logits) - onehot(id)) + divergence_weight * (softmax(logits) - softmax(teacher)),
// the gradient of weight * cross-entropy + divergence_weight * KL(teacher || draft). Hinton et al. 2015,
// arXiv:1503.02531, for the second term.
//
// Constants: LANES per row, a power of two. A file of teacher/ says whether there is one.
// Dispatch: one workgroup per row.
struct CrossEntropyParams { vocab: u32 }
struct Label { id: u32, weight: f32, divergence_weight: f32 }             // id NONE: weight counts as 0
struct RowLoss { cross_entropy: f32, divergence: f32, choice: u32, teacher_choice: u32 }
@group(0) @binding(0) var<uniform> params: CrossEntropyParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(2) var<storage, read_write> logits: array<f32>;        // [rows of the chunk, vocab]
@group(0) @binding(3) var<storage, read> labels: array<Label>;            // from step.first_output on, one a row
@group(0) @binding(4) var<storage, read_write> losses: array<RowLoss>;    // likewise

const NONE: u32 = 0xffffffffu;
// The exponent's lower end: smaller terms vanish beside the largest.
const LEAST: f32 = -80.0;

@compute @workgroup_size(LANES)
fn cross_entropy(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    if group.x >= step.outputs { return; }
    let first = group.x * params.vocab;
    let label = labels[step.first_output + group.x];
    // Read before any lane overwrites it.
    let labelled = logits[first + min(label.id, params.vocab - 1u)];

    // A lane without logits ends at an index past all others.
    var highest = Highest(LOWEST, lane);
    var teacher_highest = Highest(LOWEST, lane);
    for (var i = lane; i < params.vocab; i += LANES) {
        let logit = logits[first + i];
        if logit > highest.value { highest = Highest(logit, i); }
        if TEACHER {
            let other = teacher(first + i);
            if other > teacher_highest.value { teacher_highest = Highest(other, i); }
        }
    }
    highest = highest_of(lane, highest);
    if TEACHER { teacher_highest = highest_of(lane, teacher_highest); }

    var sum = 0.0;
    var teacher_sum = 0.0;
    var differences = 0.0;
    for (var i = lane; i < params.vocab; i += LANES) {
        let below = logits[first + i] - highest.value;
        sum += exp(max(below, LEAST));
        if TEACHER {
            let teacher_below = teacher(first + i) - teacher_highest.value;
            let power = exp(max(teacher_below, LEAST));
            teacher_sum += power;
            differences = fma(power, teacher_below - below, differences);
        }
    }
    sum = total(lane, sum);
    if TEACHER {
        teacher_sum = total(lane, teacher_sum);
        differences = total(lane, differences);
    }

    let is_labelled = label.id != NONE;
    if lane == 0u {
        var loss = RowLoss(0.0, 0.0, highest.index, label.id);
        if is_labelled { loss.cross_entropy = log(sum) - (labelled - highest.value); }
        if TEACHER {
            loss.divergence = differences / teacher_sum + (log(sum) - log(teacher_sum));
            loss.teacher_choice = teacher_highest.index;
        }
        losses[step.first_output + group.x] = loss;
    }

    let weight = select(0.0, label.weight, is_labelled);
    let share = 1.0 / sum;
    for (var i = lane; i < params.vocab; i += LANES) {
        let probability = exp(max(logits[first + i] - highest.value, LEAST)) * share;
        var gradient = weight * (probability - select(0.0, 1.0, i == label.id));
        if TEACHER {
            let wanted = exp(max(teacher(first + i) - teacher_highest.value, LEAST)) / teacher_sum;
            gradient = fma(label.divergence_weight, probability - wanted, gradient);
        }
        logits[first + i] = gradient;
    }
}
