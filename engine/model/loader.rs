//! From a checkpoint's tensors to a model's matrices on the device.

use std::sync::Arc;

use super::tensor_map::{
    Stacked, TensorMap, check_unused, end_matrices, expected_matrices, layer_matrices, projection,
};
use super::tied_draft::{MASK_EMBEDDING, TargetEmbeddings, Vocabulary, check_target, independence, unfit, vocabulary};
use super::weight_dtype::WeightDtype;
use super::weights::{LayerWeights, Progress, Projection, Weights};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::config::Config;
use crate::checkpoint::hugging_face::TARGET_BIAS;
use crate::error::{Error, OptionName, Result};
use crate::gpu::{Device, KernelPlan};
use crate::ops::{Matrix, Section, Source, Tensor, check_products};

impl Weights {
    /// Uploads the weights of `checkpoint`, which must be those that `config` describes.
    ///
    /// # Errors
    ///
    /// [`Error::NoEmbeddings`] for a draft that needs its target's; [`Error::MissingTensor`] or
    /// [`Error::TensorShape`] before anything is uploaded; [`Error::Gpu`] if the plan's matrix units fail their check;
    /// [`Error::OutOfMemory`], [`Error::Limit`].
    pub fn upload(
        device: &Device,
        plan: &KernelPlan,
        config: &Config,
        checkpoint: &dyn Checkpoint,
        choice: WeightDtype,
        progress: &Progress,
    ) -> Result<Weights> {
        config.check(checkpoint.path())?;
        if config.shared_embeddings {
            return Err(Error::NoEmbeddings { path: checkpoint.path().to_owned() });
        }
        let mut loader = Loader::new(device, plan, config, checkpoint, choice, progress)?;
        check_products(device, plan)?;
        let [embedding, head] = end_matrices(config);
        let embedding = loader.matrix(&embedding)?;
        let head = match config.tied_head {
            true => None,
            false => Some(Arc::new(loader.matrix(&head)?)),
        };
        loader.finish(config, Arc::new(embedding), head, None)
    }

    /// Uploads a draft beside `target`. A whole model is uploaded as by [`Weights::upload`]; one without embeddings of its
    /// own shares those of `target`, and of a reduced head it gets a copy of the rows it needs. On another device than the
    /// target's it gets copies of all that it shares. A draft that reads its target's states drafts without them, with a
    /// notice, if `target` has none such or is on another device.
    ///
    /// # Errors
    ///
    /// As [`Weights::upload`]; [`Error::Config`] if the target's embeddings do not fit;
    /// [`Error::Damaged`] for a faulty vocabulary; [`Error::Option`] if the plan lays weights out unlike the target's.
    pub fn upload_draft(
        device: &Device,
        plan: &KernelPlan,
        config: &Config,
        checkpoint: &dyn Checkpoint,
        target: &Weights,
        choice: WeightDtype,
        progress: &Progress,
    ) -> Result<Weights> {
        check_target(config, checkpoint, &target.config)?;
        let is_here = device.is_same(&target.device);
        let elsewhere = || (!is_here).then(|| "its target is on another device".to_owned());
        if let Some(reason) = unfit(config, &target.config).or_else(|| config.target_layers.as_ref().and(elsewhere())) {
            let config = Config { target_layers: None, ..config.clone() };
            let mut draft = Weights::upload_draft(device, plan, &config, checkpoint, target, choice, progress)?;
            draft.notices.push(independence(&reason));
            return Ok(draft);
        }
        if !config.shared_embeddings {
            return Weights::upload(device, plan, config, checkpoint, choice, progress);
        }
        config.check(checkpoint.path())?;
        if (plan.lanes, plan.products) != (target.plan.lanes, target.plan.products) {
            let reason = format!(
                "a draft that shares its target's embeddings is multiplied as those are: {}, {} lanes",
                target.plan.products, target.plan.lanes
            );
            return Err(Error::Option { option: OptionName::Products, reason });
        }
        // Config::check has seen to it that there is one.
        let mask = config.mask_token.unwrap_or_default();
        let vocabulary = vocabulary(config, checkpoint)?;
        let loader = Loader::new(device, plan, config, checkpoint, choice, progress)?;
        let mask_row = loader.vector(&[MASK_EMBEDDING], &[config.hidden_size])?;
        check_products(device, plan)?;
        let here = |matrix: &Arc<Matrix>| match is_here {
            true => Ok(matrix.clone()),
            false => matrix.copied_to(&target.device, device).map(Arc::new),
        };
        let embedding = here(&target.embedding)?;
        let (head, vocabulary) = match vocabulary {
            None => (target.own_head().map(here).transpose()?, None),
            Some(ids) => {
                let head = Arc::new(target.head().gather(&target.device, "reduced head", &ids)?);
                let head = if is_here { head } else { here(&head)? };
                (Some(head), Some(Vocabulary::new(device, ids)?))
            }
        };
        loader.finish(config, embedding, head, Some(TargetEmbeddings { mask, mask_row, vocabulary, is_copy: !is_here }))
    }
}

/// Uploads one checkpoint's weights.
struct Loader<'a> {
    device: &'a Device,
    plan: &'a KernelPlan,
    checkpoint: &'a dyn Checkpoint,
    choice: WeightDtype,
    progress: &'a Progress<'a>,
    total: u64,
    done: u64,
    notices: Vec<String>,
}

impl<'a> Loader<'a> {
    /// Checks every matrix's name and shape before anything is uploaded.
    fn new(
        device: &'a Device,
        plan: &'a KernelPlan,
        config: &Config,
        checkpoint: &'a dyn Checkpoint,
        choice: WeightDtype,
        progress: &'a Progress<'a>,
    ) -> Result<Loader<'a>> {
        check_unused(config, checkpoint)?;
        let total = expected_matrices(config).iter().try_fold(0, |sum, (name, shape)| {
            checkpoint.expect(name, shape)?;
            Ok::<_, Error>(sum + (shape[0] * shape[1]) as u64)
        })?;
        Ok(Loader { device, plan, checkpoint, choice, progress, total, done: 0, notices: Vec::new() })
    }

    /// Uploads the layers between `embedding` and `head`.
    fn finish(
        mut self,
        config: &Config,
        embedding: Arc<Matrix>,
        head: Option<Arc<Matrix>>,
        shared: Option<TargetEmbeddings>,
    ) -> Result<Weights> {
        let layers = (0..config.layers).map(|layer| self.layer(config, layer)).collect::<Result<_>>()?;
        let final_norm = self.vector(&["model.norm.weight"], &[config.hidden_size])?;
        let projection = projection(config).map(|parts| self.projection(config, &parts)).transpose()?;
        let (device, plan, config) = (self.device.clone(), *self.plan, config.clone());
        let notices = self.notices;
        Ok(Weights { device, plan, config, embedding, layers, final_norm, head, shared, projection, notices })
    }

    /// The projection of the target's states.
    fn projection(&mut self, config: &Config, parts: &TensorMap) -> Result<Projection> {
        let scaled = |scale: f32| -> Result<Vec<f32>> {
            let bias = self.checkpoint.read_vector(TARGET_BIAS, config.hidden_size)?;
            Ok(bias.into_iter().map(|value| scale * value).collect())
        };
        let target = config.target_layers.as_ref().filter(|target| target.bias);
        let bias = target.map(|target| scaled(target.scale)).transpose()?;
        Ok(Projection { matrix: self.matrix(parts)?, bias })
    }

    /// The weights of layer `layer`.
    fn layer(&mut self, config: &Config, layer: usize) -> Result<LayerWeights> {
        let hidden = config.hidden_size;
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let [qkv, output, gate_up, down] = layer_matrices(config, layer);
        let biases: Vec<String> = qkv.names.iter().map(|name| name.replace("weight", "bias")).collect();
        let qkv_bias = config.qkv_bias.then(|| self.vector(&biases, &qkv.rows)).transpose()?;
        let gain = |loader: &Self, part, width| loader.vector(&[name(part)], &[width]);
        let head_norm = match config.head_norm {
            false => None,
            true => Some([
                gain(self, "self_attn.q_norm.weight", config.head_dim)?,
                gain(self, "self_attn.k_norm.weight", config.head_dim)?,
            ]),
        };
        Ok(LayerWeights {
            attention_norm: gain(self, "input_layernorm.weight", hidden)?,
            qkv: self.matrix(&qkv)?,
            qkv_bias,
            head_norm,
            output: self.matrix(&output)?,
            feed_forward_norm: gain(self, "post_attention_layernorm.weight", hidden)?,
            gate_up: self.gate_up(&gate_up)?,
            down: self.matrix(&down)?,
        })
    }

    /// One row made of the vectors `names`, one after the other.
    fn vector<N: AsRef<str>>(&self, names: &[N], lens: &[usize]) -> Result<Tensor> {
        let mut values = Vec::new();
        for (name, &len) in names.iter().zip(lens) {
            values.extend(self.checkpoint.read_vector(name.as_ref(), len)?);
        }
        Tensor::vector(self.device, names[0].as_ref(), &values)
    }

    /// One matrix, each tensor in its own format.
    fn matrix(&mut self, parts: &TensorMap) -> Result<Matrix> {
        let stacks = parts.stacks(self.checkpoint, self.choice)?;
        self.note(&stacks);
        let values: Vec<_> = stacks.iter().map(|stack| |rows, out: &mut [f32]| stack.values(rows, out)).collect();
        let blocks: Vec<_> = stacks.iter().map(|stack| |rows, out: &mut [u8]| stack.blocks(rows, out)).collect();
        let sections = stacks.iter().zip(values.iter().zip(&blocks)).map(|(stack, (values, blocks))| Section {
            format: stack.format,
            rows: stack.rows(),
            source: if stack.as_stored() { Source::Stored(blocks) } else { Source::Values(values) },
        });
        let sections: Vec<Section> = sections.collect();
        let matrix = Matrix::of_sections(self.device, self.plan, &parts.names[0], parts.columns, &sections)?;
        self.progressed(parts);
        Ok(matrix)
    }

    /// Gate and up.
    fn gate_up(&mut self, parts: &TensorMap) -> Result<Matrix> {
        let both = parts.pair(self.checkpoint, self.choice)?;
        self.note(std::slice::from_ref(&both));
        let values = |rows, out: &mut [f32]| both.values(rows, out);
        let blocks = |rows, out: &mut [u8]| both.blocks(rows, out);
        let source = if both.as_stored() { Source::Stored(&blocks) } else { Source::Values(&values) };
        let shape = [parts.rows[0], parts.columns];
        let matrix = Matrix::of_pair(self.device, self.plan, &parts.names[0], both.format, shape, source)?;
        self.progressed(parts);
        Ok(matrix)
    }

    fn progressed(&mut self, parts: &TensorMap) {
        self.done += (parts.rows.iter().sum::<usize>() * parts.columns) as u64;
        (self.progress)(self.done, self.total);
    }

    /// Keeps what is to be told of tensors that change their format unasked.
    fn note(&mut self, stacks: &[Stacked]) {
        for notice in stacks.iter().flat_map(|stack| stack.notices(self.choice)) {
            if !self.notices.contains(&notice) {
                self.notices.push(notice);
            }
        }
    }
}
