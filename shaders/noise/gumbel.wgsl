// A token is drawn from softmax(logits / temperature): argmax(logit + temperature * g) with Gumbel noise g
// (Maddison et al. 2014, arXiv:1411.0030; shared/gumbel). The bits are a function of the sequence's seed, the
// token's position and its id alone, so that a seed gives the same text whatever runs beside it, and a draft that draws by
// the same noise proposes the tokens that its target will draw, as far as their distributions agree.

// Parameters for drawing a row's token (draw/).
struct Draw {
    temperature: f32,  // 0: the likeliest token is taken
    seed: u32,         // seed of the noise
    position: u32,     // position of the token that is drawn
}

fn noised(row: u32, index: u32, logit: f32) -> f32 {
    let drawn = draw(row);
    if drawn.temperature == 0.0 { return logit; }
    if !is_kept(row, logit) { return -3.4028234e38; }
    return fma(drawn.temperature, gumbel(token(index), drawn.position, drawn.seed), logit);
}
