// Asks for the weights that come next: reads a word of each cache line, 64 bytes, that run `run` takes of `block`, so that
// it is on its way from memory while the run before it is multiplied. A CPU that gathers does not see for itself what it
// will want; a GPU has other subgroups to run meanwhile.
//
// Constants: CHUNK_PIECES and CHUNK_WORDS, pieces of a row that only exist together and the words they take.
fn read_ahead(block: u32, run: u32, lane: u32) -> u32 {
    let row = (params.pieces + CHUNK_PIECES - 1u) / CHUNK_PIECES * CHUNK_WORDS;
    let start = (block * row + run * RUN * CHUNK_WORDS / CHUNK_PIECES) * LANES;
    let lines = (RUN * CHUNK_WORDS * LANES + CHUNK_PIECES * 16u - 1u) / (CHUNK_PIECES * 16u);
    var seen = 0u;
    for (var line = 0u; line < lines; line += LANES) {
        seen |= word_at(start + min(line + lane, lines - 1u) * 16u);
    }
    return seen;
}

// Makes a compiler believe that what was read ahead is wanted: no output is 0 wide.
fn keep(seen: u32) {
    if AHEAD != 0u && params.stride == 0u { y[0] = f32(seen); }
}
