// The values of IQ4_NL and IQ4_XS (sixteen_values.wgsl) as bytes.

// The values of 4-bit numbers, each a byte of `q`.
fn value_bytes(q: vec4<u32>) -> vec4<u32> {
    var bytes = vec4(0u);
    for (var i = 0u; i < 32u; i += 8u) {
        let number = (q >> vec4(i)) & vec4(15u);
        let byte = (words_of(number) >> ((number & vec4(3u)) << vec4(3u))) & vec4(255u);
        bytes |= byte << vec4(i);
    }
    return bytes;
}

fn value_operands(q: vec4<u32>) -> Operands {
    let numbers = nibble_bytes(q);
    return Operands(value_bytes(numbers.a), value_bytes(numbers.b));
}
