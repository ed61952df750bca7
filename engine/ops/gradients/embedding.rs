//! The gradient of [`super::super::Embedding`]'s table: shaders/kernels/training/embedding_gradient.wgsl.

use super::super::{Matrix, Tensor};
use super::expect_pieces;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Dispatch, Pass, Work};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct EmbeddingGradientParams {
    pieces: u32,
    rows_out: u32,
    first_out: u32,
}

/// Rows that read each token, as the host writes them for each pass. All buffers hold u32.
#[derive(Clone, Copy)]
pub struct Readers<'a> {
    /// The tokens, each at most once.
    pub ids: &'a Buffer,
    /// Start of each token's rows in `rows`, then the end of the last one's.
    pub firsts: &'a Buffer,
    /// The rows, token by token.
    pub rows: &'a Buffer,
}

/// The gradient of an embedding table, with its operands bound.
pub struct EmbeddingGradient {
    parts: Vec<Dispatch>,
    workgroups: u32,
    width: usize,
}

impl EmbeddingGradient {
    /// `gradient[ids[k]] += Σ dx[r]` over the rows `r` that read token `ids[k]`.
    ///
    /// Shapes: `dx` is `[rows, width]`; `gradients` hold, for each part of the table `[vocab, width]`, as many f32 as the
    /// part has weights, in its layout.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn new(
        device: &Device,
        readers: Readers,
        dx: &Tensor,
        table: &Matrix,
        gradients: &[Buffer],
    ) -> Result<EmbeddingGradient> {
        dx.expect("embedding_gradient", "dx", 1, table.columns())?;
        if gradients.len() != table.parts().len() {
            let (got, expected) = (vec![gradients.len()], vec![table.parts().len()]);
            return Err(Error::Shape { op: "embedding_gradient", tensor: "gradients", got, expected });
        }
        let mut parts = Vec::new();
        for ((part, weights), gradient) in table.parts().iter().zip(table.part_lens()).zip(gradients) {
            expect_pieces("embedding_gradient", "gradients", gradient, weights)?;
            parts.push((part.first, part.outputs, gradient));
        }
        EmbeddingGradient::over(device, readers, dx, table.lanes(), &parts)
    }

    /// The same for a table of one row, which is trained while the others are frozen: the mask token's. It is token 0 of
    /// `readers`.
    ///
    /// Shapes: `dx` is `[rows, width]`, `gradient` `[1, width]`; `width` is a multiple of 8.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if they do not fit.
    pub fn of_row(device: &Device, readers: Readers, dx: &Tensor, gradient: &Tensor) -> Result<EmbeddingGradient> {
        if !dx.width.is_multiple_of(8) {
            let (got, expected) = (vec![dx.rows, dx.width], vec![dx.rows, dx.width.next_multiple_of(8)]);
            return Err(Error::Shape { op: "embedding_gradient", tensor: "dx", got, expected });
        }
        gradient.expect("embedding_gradient", "gradient", 1, dx.width)?;
        EmbeddingGradient::over(device, readers, dx, 1, &[(0, 1, &gradient.buffer)])
    }

    /// Parts are the first row, the rows and the gradient of each.
    fn over(
        device: &Device,
        readers: Readers,
        dx: &Tensor,
        lanes: u32,
        parts: &[(usize, usize, &Buffer)],
    ) -> Result<EmbeddingGradient> {
        let kernel = device.kernel(&["embedding_gradient"], &[("LANES", lanes)])?;
        let pieces = (dx.width / 4) as u32;
        let Readers { ids, firsts, rows } = readers;
        let bind = |&(first, outputs, gradient): &(usize, usize, &Buffer)| {
            let params = EmbeddingGradientParams { pieces, rows_out: outputs as u32, first_out: first as u32 };
            let params = Buffer::uniform(device, "embedding_gradient params", &params)?;
            kernel.dispatch(device, &[&params, ids, firsts, rows, &dx.buffer, gradient], [1, 1, 1])
        };
        let parts = parts.iter().map(bind).collect::<Result<_>>()?;
        Ok(EmbeddingGradient { parts, workgroups: pieces.div_ceil(8), width: dx.width })
    }

    /// Records the gradients of the first `ids` tokens, which `rows` rows read.
    pub fn encode(&self, pass: &mut Pass, ids: usize, rows: usize) {
        // Each of several parts has some of the tokens.
        let bytes = 4 * (rows + 2 * ids) * self.width / self.parts.len();
        let work = Work::of(rows, [1, self.width], bytes, rows * self.width / self.parts.len());
        for part in &self.parts {
            part.encode_over(pass, [self.workgroups, ids as u32, 1], work);
        }
    }
}
