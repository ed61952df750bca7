//! Trained parameters: matrices and vectors in f32 on the device, each with its gradient.

use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::gpu::{Buffer, Device, KernelPlan};
use crate::ops::{Matrix, Tensor, WeightFormat};

/// A matrix or a vector, with its gradient beside it.
pub struct Parameter {
    tensors: Vec<(String, usize)>,
    columns: usize,
    values: Values,
}

/// Values and their gradients, which have the same layout.
enum Values {
    Matrix { matrix: Box<Matrix>, gradients: Vec<Buffer> },
    Vector { values: Tensor, gradient: Tensor },
}

impl Parameter {
    /// One matrix made of the tensors `tensors` of `checkpoint`, given by name and height, one below the other.
    ///
    /// # Errors
    ///
    /// Those of reading the checkpoint and of [`Matrix::upload`].
    pub fn matrix(
        device: &Device,
        plan: &KernelPlan,
        checkpoint: &dyn Checkpoint,
        tensors: Vec<(Source, usize)>,
        columns: usize,
    ) -> Result<Parameter> {
        let mut values = Vec::new();
        for (source, height) in &tensors {
            checkpoint.expect(&source.from, &[*height, columns])?;
            let start = values.len();
            values.resize(start + height * columns, 0.0);
            checkpoint.read_rows(&source.from, 0..*height, &mut values[start..])?;
        }
        let tensors = tensors.into_iter().map(|(source, height)| (source.to, height)).collect();
        Parameter::of_matrix(device, plan, tensors, columns, &values)
    }

    /// A matrix that begins with `values`, of tensors given by name and height.
    ///
    /// # Errors
    ///
    /// Those of [`Matrix::upload`].
    pub fn of_matrix(
        device: &Device,
        plan: &KernelPlan,
        tensors: Vec<(String, usize)>,
        columns: usize,
        values: &[f32],
    ) -> Result<Parameter> {
        let height = values.len() / columns;
        let read = |rows: std::ops::Range<usize>, out: &mut [f32]| {
            out.copy_from_slice(&values[rows.start * columns..rows.end * columns]);
            Ok(())
        };
        let matrix = Matrix::upload(device, plan, &tensors[0].0, WeightFormat::F32, [height, columns], &read)?;
        let gradients = matrix.gradients(device)?;
        Ok(Parameter { tensors, columns, values: Values::Matrix { matrix: Box::new(matrix), gradients } })
    }

    /// One vector made of the tensors `tensors` of `checkpoint`, given by name and length, one after the other.
    ///
    /// # Errors
    ///
    /// Those of reading the checkpoint; [`crate::Error::OutOfMemory`].
    pub fn vector(device: &Device, checkpoint: &dyn Checkpoint, tensors: Vec<(Source, usize)>) -> Result<Parameter> {
        let mut values = Vec::new();
        for (source, len) in &tensors {
            values.extend(checkpoint.read_vector(&source.from, *len)?);
        }
        Parameter::of_vector(device, tensors.into_iter().map(|(source, len)| (source.to, len)).collect(), &values)
    }

    /// A vector that begins with `values`.
    ///
    /// # Errors
    ///
    /// [`crate::Error::OutOfMemory`].
    pub fn of_vector(device: &Device, tensors: Vec<(String, usize)>, values: &[f32]) -> Result<Parameter> {
        let gradient = Tensor::vector(device, "gradient", &vec![0.0; values.len()])?;
        let values = Tensor::vector(device, &tensors[0].0, values)?;
        Ok(Parameter { tensors, columns: 1, values: Values::Vector { values, gradient } })
    }

    /// The matrix and its gradients.
    ///
    /// # Panics
    ///
    /// Panics if it is a vector, which its maker knows.
    pub fn as_matrix(&self) -> (&Matrix, &[Buffer]) {
        match &self.values {
            Values::Matrix { matrix, gradients } => (matrix, gradients),
            Values::Vector { .. } => unreachable!("{} is a vector", self.tensors[0].0),
        }
    }

    /// The vector and its gradient.
    ///
    /// # Panics
    ///
    /// Panics if it is a matrix, which its maker knows.
    pub fn as_vector(&self) -> [&Tensor; 2] {
        match &self.values {
            Values::Vector { values, gradient } => [values, gradient],
            Values::Matrix { .. } => unreachable!("{} is a matrix", self.tensors[0].0),
        }
    }

    /// The buffers of the values, each with its gradient's and the number of f32 they hold, padding included.
    pub fn buffers(&self) -> Vec<([&Buffer; 2], usize)> {
        let len = |buffer: &Buffer| (buffer.bytes() / size_of::<f32>() as u64) as usize;
        match &self.values {
            Values::Matrix { matrix, gradients } => {
                matrix.buffers().zip(gradients).map(|(values, gradient)| ([values, gradient], len(values))).collect()
            }
            Values::Vector { values, gradient } => {
                vec![([&values.buffer, &gradient.buffer], len(&values.buffer))]
            }
        }
    }

    /// The names of its tensors in a checkpoint, with their heights (a vector's lengths).
    pub fn tensors(&self) -> &[(String, usize)] {
        &self.tensors
    }

    /// The shape of a tensor that is `height` high.
    pub fn shape(&self, height: usize) -> Vec<usize> {
        match self.values {
            Values::Matrix { .. } => vec![height, self.columns],
            Values::Vector { .. } => vec![height],
        }
    }

    /// The values, row by row, of all tensors one after the other.
    ///
    /// # Errors
    ///
    /// As [`Device::check`](crate::gpu::GpuContext::check).
    pub fn read(&self, device: &Device) -> Result<Vec<f32>> {
        match &self.values {
            Values::Matrix { matrix, .. } => matrix.read_rows(device),
            Values::Vector { values, .. } => values.buffer.read(device, 0, values.width),
        }
    }
}

/// Names of a tensor in the base and in the draft: layers may move up.
pub struct Source {
    /// Its name in the base's checkpoint.
    pub from: String,
    /// Its name in the draft's.
    pub to: String,
}
