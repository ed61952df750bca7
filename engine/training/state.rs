//! A run's checkpoint: one safetensors file with every parameter, both its moments, and the run's progress. A resumed run
//! continues exactly as it would have.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;

use super::parameter::Parameter;
use super::trainer::{Position, Trainer};
use crate::checkpoint::export::{StoredTensor, write_tensors};
use crate::error::{Error, Result};
use crate::gpu::Device;

const POSITION: &str = "position";
const RUN: &str = "run";

/// Writes the run's state. `run` describes it: a run that is described otherwise cannot go on from it.
///
/// # Errors
///
/// [`Error::Write`]; as [`Device::check`](crate::gpu::GpuContext::check).
pub fn save(path: &Path, device: &Device, trainer: &Trainer, run: &str) -> Result<()> {
    let mut tensors = Vec::new();
    let moments = trainer.optimizer().moments()?;
    let buffers = trainer.network().parameters().flat_map(Parameter::buffers);
    for (index, (([values, _], len), [first, second])) in buffers.zip(&moments).enumerate() {
        let values: Vec<f32> = values.read(device, 0, len)?;
        for (kind, values) in [("values", &values), ("moment1", first), ("moment2", second)] {
            tensors.push((name(index, kind), StoredTensor::f32(vec![values.len()], values)));
        }
    }
    let position = serde_json::to_string(&trainer.position())
        .map_err(|error| Error::Write { path: path.to_owned(), source: error.into() })?;
    let metadata = HashMap::from([(POSITION.to_owned(), position), (RUN.to_owned(), run.to_owned())]);
    write_tensors(path, &tensors, metadata)
}

/// Puts `trainer` where the run that wrote `path` was.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Damaged`] if it is no such file; [`Error::OtherRun`] if it is of a run that is
/// described otherwise.
pub fn restore(path: &Path, device: &Device, trainer: &mut Trainer, run: &str) -> Result<()> {
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let text = |key: &str| metadata.get(key).ok_or_else(|| damaged(format!("it is no training state: no {key:?}")));
    if text(RUN)? != run {
        return Err(Error::OtherRun { path: path.to_owned(), theirs: text(RUN)?.clone(), ours: run.to_owned() });
    }
    let position: Position = serde_json::from_str(text(POSITION)?).map_err(|error| damaged(error.to_string()))?;
    let values_of = |index, kind, len: usize| -> Result<Vec<f32>> {
        let tensor = file.tensor(&name(index, kind)).map_err(|error| damaged(error.to_string()))?;
        if tensor.data().len() != len * size_of::<f32>() {
            return Err(damaged(format!("{} has another length", name(index, kind))));
        }
        Ok(tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    };
    for (index, ([values, _], len)) in trainer.network().parameters().flat_map(Parameter::buffers).enumerate() {
        values.write(device, 0, &values_of(index, "values", len)?);
        let [first, second] = ["moment1", "moment2"].map(|kind| values_of(index, kind, len));
        trainer.optimizer().set_moments(index, [&first?, &second?])?;
    }
    trainer.resume_at(position);
    Ok(())
}

fn name(index: usize, kind: &str) -> String {
    format!("{index:04}.{kind}")
}
