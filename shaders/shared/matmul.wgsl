// Operands of both matrix products.
struct MatmulParams {
    pieces: u32,     // depth / 8
    rows_out: u32,   // outputs of this part of the matrix
    first_out: u32,  // the part's first output
    stride: u32,     // width of y
    first_row: u32,  // the first row that is bound, where rows are read as a uniform
}
@group(0) @binding(0) var<uniform> params: MatmulParams;
@group(0) @binding(1) var<uniform> step: Step;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;    // [rows, stride]
