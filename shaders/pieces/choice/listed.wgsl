// The token that a logit is of, where the head has rows for some tokens only.
@group(0) @binding(AT_VOCABULARY) var<storage, read> vocabulary: array<u32>;          // [logits of a row], ascending ids

fn token(index: u32) -> u32 { return vocabulary[index]; }
