// Formats without scales: each piece stands for itself, and a lane's are 16 bytes or more in one place.
const SHARE: u32 = 1u;

struct Scale { none: u32 }

fn row_start(block: u32, pieces: u32) -> u32 {
    return block * pieces;
}

fn scale_of(start: u32, run: u32, lane: u32) -> Scale {
    return Scale(0u);
}

fn weight8(scale: Scale, start: u32, piece: u32, lane: u32) -> Eight {
    return widened(scale, raw8(start, piece, lane));
}
