// The sixteen values of 4-bit numbers in IQ4_NL and IQ4_XS, as signed bytes, lowest number first
// (engine/formats/sixteen_values.rs).
const VALUES = vec4(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);

// The words that have the values of `q`, as their bytes q % 4. Selected, since an array in private memory would be slower.
fn words_of(q: vec4<u32>) -> vec4<u32> {
    let low = select(vec4(VALUES.x), vec4(VALUES.y), (q & vec4(4u)) != vec4(0u));
    let high = select(vec4(VALUES.z), vec4(VALUES.w), (q & vec4(4u)) != vec4(0u));
    return select(low, high, (q & vec4(8u)) != vec4(0u));
}

fn values_of(q: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(vec4<i32>(words_of(q) << (vec4(24u) - ((q & vec4(3u)) << vec4(3u)))) >> vec4(24u));
}

// The values of eight numbers of a word, lowest first.
fn sixteen_values(word: u32) -> Eight {
    let w = vec4(word);
    return Eight(
        values_of((w >> vec4(0u, 4u, 8u, 12u)) & vec4(15u)),
        values_of((w >> vec4(16u, 20u, 24u, 28u)) & vec4(15u)),
    );
}
