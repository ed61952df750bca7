// Rows of a batch, each of a sequence of its own.

// A row's token stands one position further on.
fn draw(row: u32) -> Draw {
    return Draw(batch[row].temperature, batch[row].seed, batch[row].position + 1u);
}
