// IQ4_NL as integers.
fn operands(now: Run, i: u32) -> Operands { return value_operands(select(now.second, now.first, i == 0u)); }

fn add_block(w: Operands, v: Rounded, scales: Scales, i: u32, sum: f32) -> f32 {
    return add_scaled(dot32(w, v, 0), v, select(scales.d.y, scales.d.x, i == 0u), sum);
}
