// One step of AdamW: Adam with decoupled weight decay. Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2;
// the learning rate is its product of schedule and alpha, and scales the decay too, as in PyTorch.
// The gradient is first shortened so that the norm over all parameters is at most `clip`, and zeroed in the end.
//
// Dispatch: x and y over pieces of 4 in workgroups of 64. A file of moments/ says how the moments are kept.
struct AdamWParams { pieces: u32 }                                        // values / 4
struct AdamWStep {
    learning_rate: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    weight_decay: f32,
    correction1: f32,   // 1 - beta1^t
    correction2: f32,   // 1 - beta2^t
    clip: f32,
    number: u32,        // t
}
@group(0) @binding(0) var<uniform> params: AdamWParams;
@group(0) @binding(1) var<uniform> step: AdamWStep;
@group(0) @binding(2) var<storage, read> norm: array<f32>;                // [1]
@group(0) @binding(3) var<storage, read_write> parameter: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> gradient: array<vec4<f32>>;

@compute @workgroup_size(64)
fn adamw(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (group.x + group.y * groups.x) * 64u + lane;
    if at >= params.pieces { return; }
    var g = gradient[at];
    if norm[0] > step.clip { g *= step.clip / norm[0]; }
    let m = step.beta1 * first_moment(at) + (1.0 - step.beta1) * g;
    let v = step.beta2 * second_moment(at) + (1.0 - step.beta2) * (g * g);
    store_moments(at, m, v);
    let direction = (m / step.correction1) / (sqrt(v / step.correction2) + step.epsilon);
    let value = parameter[at];
    parameter[at] = value - step.learning_rate * (direction + step.weight_decay * value);
    gradient[at] = vec4(0.0);
}
