// sum + (products * step) * scale - total * minimum, by those of group `i`, 0 or 1, for Q4_K and Q5_K as integers.
fn add_six_bits(products: i32, v: Rounded, groups: SixBits, i: u32, sum: f32) -> f32 {
    let scale = select(groups.scale.y, groups.scale.x, i == 0u);
    let minimum = select(groups.minimum.y, groups.minimum.x, i == 0u);
    return fma(-minimum, total(v), add_scaled(products, v, scale, sum));
}
