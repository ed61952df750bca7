// Sampling parameters of each turn of a round, as far as device and host agree on them.
struct TurnSampling {
    temperature: f32,  // 0: the likeliest token is taken
    seed: u32,         // seed of the noise that the target's tokens are drawn by
    draft_seed: u32,   // likewise the draft's
    accept_seed: u32,  // seed of the noise that the rejection rule accepts proposals by
    top_k: u32,        // 0: all
    top_p: f32,        // 1: all
    min_p_gap: f32,    // temperature * log(min p)
    repetition: f32,   // penalties
    presence: f32,
    frequency: f32,
    changes: u32,      // 1: biases change logits, 2: penalties do, of committed tokens that are counted, 4: a grammar does
    logprobs: u32,     // 0: no log-probabilities are wanted, else 1 + the number of the likeliest tokens
}
// A uniform, since it decides over barriers.
@group(0) @binding(AT_SAMPLING) var<uniform> sampling: array<TurnSampling, 32>;
