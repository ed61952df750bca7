// Q4_0 as integers. The bytes are q of 0 to 15; 8 times the sum of x is taken off.
fn operands(now: Run, i: u32) -> Operands { return nibble_bytes(select(now.second, now.first, i == 0u)); }

fn add_block(w: Operands, v: Rounded, scales: Scales, i: u32, sum: f32) -> f32 {
    let more = -8 * (sum_a(v) + sum_b(v));
    return add_scaled(dot32(w, v, more), v, select(scales.d.y, scales.d.x, i == 0u), sum);
}
