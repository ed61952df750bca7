// Cooperative matrices of 8 x 8, f16 in and f32 sums.
const TILE: u32 = 8u;
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sums = coop_mat8x8<f32, C>;
