// Pairs of one expert that a product multiplies at a time. Pair p is choice p % TOP of row p / TOP.
struct ExpertGroup {
    expert: u32,
    first: u32,     // its place in the order of pairs
    count: u32,     // 0 if there is no such group
}
