// A token is drawn from softmax(logits / temperature): argmax(logit + temperature * g) with Gumbel noise g
// (Maddison et al. 2014, arXiv:1411.0030; shared/gumbel). The bits are a function of the sequence's seed, the
// token's position and its id alone, so that a seed gives the same text whatever runs beside it, and a draft that draws by
// the same noise proposes the tokens that its target will draw, as far as their distributions agree.
//
// Constants: DRAFT 1 for a draft's rows, 0 for a target's.

fn noised(row: u32, index: u32, logit: f32) -> f32 {
    let turn = output_turn(row);
    let temperature = sampling[turn].temperature;
    if temperature == 0.0 { return logit; }
    if !is_kept(row, logit) { return -3.4028234e38; }
    let seed = select(sampling[turn].seed, sampling[turn].draft_seed, DRAFT != 0u);
    return fma(temperature, gumbel(token(index), output_position(row), seed), logit);
}
