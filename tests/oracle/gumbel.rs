//! Gumbel noise by counter: pcg3d of (id, position, seed), Jarzynski & Olano 2020, then -log(-log(1 - v)).

/// The 32 bits of one draw.
fn bits(seed: u32, position: u32, id: u32) -> u32 {
    let [mut x, mut y, mut z] = [id, position, seed].map(|v| v.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    for round in 0..2 {
        x = x.wrapping_add(y.wrapping_mul(z));
        y = y.wrapping_add(z.wrapping_mul(x));
        z = z.wrapping_add(x.wrapping_mul(y));
        if round == 0 {
            [x, y, z] = [x, y, z].map(|v| v ^ (v >> 16));
        }
    }
    x
}

/// The number in (0, 1) of one draw, off by 2^-24 of itself in f32.
pub fn uniform(seed: u32, position: u32, id: u32) -> f64 {
    (f64::from(bits(seed, position, id)) + 0.5) / 2f64.powi(32)
}

/// The noise of the token `id` at `position`, and how far an f32 kernel may be off.
///
/// With e = -log(1 - v): v is off by 2^-23 v and, above, by 2^-23 where it is clamped; log by 2^-21 where it is near 0, by
/// 3 units in the last place elsewhere; the series below 1/8 by 2^-20 of its value. And then the outer log.
pub fn gumbel(seed: u32, position: u32, id: u32) -> (f64, f64) {
    let unit = 2f64.powi(-23);
    let v = (f64::from(bits(seed, position, id)) + 0.5) / 2f64.powi(32);
    let e = -(1.0 - v).ln();
    let inner = match v {
        v if v < 0.125 => e * 2f64.powi(-20),
        v => 2.0 * unit / (1.0 - v).max(unit) + 2f64.powi(-21) + 3.0 * unit * e,
    };
    let g = -e.ln();
    (g, (1.0 + inner / e).ln().max(-(1.0 - (inner / e).min(0.9)).ln()) + 2f64.powi(-21) + 3.0 * unit * g.abs())
}
