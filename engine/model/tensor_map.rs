//! Maps a checkpoint's tensors to matrices and to the formats they are kept in. Both the plan from the files alone and
//! the upload use it.

use std::collections::BTreeSet;
use std::ops::Range;

use super::weight_dtype::{self, WeightDtype};
use crate::checkpoint::config::{Config, StateForm};
use crate::checkpoint::hugging_face::{FORMER_PROJECTION, TARGET_PROJECTION};
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, Result};
use crate::ops::WeightFormat;

/// The matrices that `config` asks for, with their shapes: a model is checked as a whole before any upload.
pub fn expected_matrices(config: &Config) -> Vec<(String, [usize; 2])> {
    let [embedding, head] = end_matrices(config);
    let own = !config.shared_embeddings;
    let ends = [(embedding, own), (head, own && !config.tied_head)];
    let ends = ends.into_iter().filter(|(_, there)| *there).map(|(parts, _)| parts);
    let layers = (0..config.layers).flat_map(|layer| layer_matrices(config, layer));
    ends.chain(layers).chain(projection(config)).flat_map(TensorMap::shapes).collect()
}

/// Checks that a model's files hold no tensor of it that nothing here uses: what the model computes is not left out in
/// silence.
///
/// # Errors
///
/// [`Error::Config`], which names the tensor.
pub(crate) fn check_unused(config: &Config, checkpoint: &dyn Checkpoint) -> Result<()> {
    // Heads of other tasks and the parts of drafts have other names.
    const OF_THE_MODEL: [&str; 5] = ["model.", "lm_head.", "blk.", "token_embd", "output"];
    // Tables of what is computed here, and matrices that a draft shares or that are tied.
    const UNUSED: [&str; 4] = ["model.embed_tokens.weight", "lm_head.weight", "rotary_emb.inv_freq", "attn_rot_embd"];
    let matrices = expected_matrices(config).into_iter().map(|(name, _)| name);
    let used: BTreeSet<String> = matrices.chain(vectors(config)).collect();
    let is_left_out = |name: &str| {
        OF_THE_MODEL.iter().any(|start| name.starts_with(start))
            && !UNUSED.iter().any(|end| name.ends_with(end))
            && !used.contains(name)
    };
    match checkpoint.tensors().iter().find(|tensor| is_left_out(&tensor.name)) {
        None => Ok(()),
        Some(TensorInfo { name, .. }) => {
            let reason = "the file holds this tensor, and what it would do in the model is not supported".to_owned();
            Err(Error::Config { path: checkpoint.path().to_owned(), field: name.clone(), reason })
        }
    }
}

/// The names of the vectors that `config` asks for.
fn vectors(config: &Config) -> impl Iterator<Item = String> + '_ {
    let mut parts = vec!["input_layernorm.weight", "post_attention_layernorm.weight"];
    if config.qkv_bias {
        parts.extend(["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"]);
    }
    if config.head_norm {
        parts.extend(["self_attn.q_norm.weight", "self_attn.k_norm.weight"]);
    }
    let of_layer = move |layer| parts.clone().into_iter().map(move |part| format!("model.layers.{layer}.{part}"));
    (0..config.layers).flat_map(of_layer).chain(["model.norm.weight".to_owned()])
}

/// The tensors that make up a matrix, one below the other.
pub(super) struct TensorMap {
    pub names: Vec<String>,
    /// Rows of each.
    pub rows: Vec<usize>,
    /// Columns of all.
    pub columns: usize,
}

impl TensorMap {
    fn new(names: &[&str], rows: &[usize], columns: usize) -> TensorMap {
        TensorMap { names: names.iter().map(|&name| name.to_owned()).collect(), rows: rows.to_vec(), columns }
    }

    /// Each tensor's name and shape.
    fn shapes(self) -> impl Iterator<Item = (String, [usize; 2])> {
        self.names.into_iter().zip(self.rows).map(move |(name, rows)| (name, [rows, self.columns]))
    }

    /// Returns the sections that they become: neighbours of one kind are one section.
    pub fn stacks<'a>(&self, checkpoint: &'a dyn Checkpoint, choice: WeightDtype) -> Result<Vec<Stacked<'a>>> {
        let mut stacks: Vec<Stacked> = Vec::new();
        for (name, &height) in self.names.iter().zip(&self.rows) {
            let of_one = Stacked::new(checkpoint, choice, name, height, self.columns)?;
            match stacks.last_mut() {
                Some(last) if last.kind() == of_one.kind() => last.tensors.extend(of_one.tensors),
                _ => stacks.push(of_one),
            }
        }
        Ok(stacks)
    }

    /// Returns gate and up in a common format.
    pub fn pair<'a>(&self, checkpoint: &'a dyn Checkpoint, choice: WeightDtype) -> Result<Stacked<'a>> {
        let stack = |index: usize| Stacked::new(checkpoint, choice, &self.names[index], self.rows[index], self.columns);
        let (mut both, up) = (stack(0)?, stack(1)?);
        // A lane's gate and up are read alike.
        both.format = weight_dtype::common(both.format, up.format);
        both.tensors.extend(up.tensors);
        Ok(both)
    }
}

/// The embedding, and the head that a model has which is not tied to it.
pub(super) fn end_matrices(config: &Config) -> [TensorMap; 2] {
    let rows = [config.vocab_size];
    ["model.embed_tokens.weight", "lm_head.weight"].map(|name| TensorMap::new(&[name], &rows, config.hidden_size))
}

/// The projection of a target's states, in a draft that reads them.
pub(super) fn projection(config: &Config) -> Option<TensorMap> {
    let target = config.target_layers.as_ref()?;
    let name = match target.form {
        StateForm::Pard2 => TARGET_PROJECTION,
        StateForm::Normalised => FORMER_PROJECTION,
    };
    Some(TensorMap::new(&[name], &[config.hidden_size], target.width()))
}

/// The matrices of layer `layer`: q, k and v; output; gate and up, which are a pair; down.
pub(super) fn layer_matrices(config: &Config, layer: usize) -> [TensorMap; 4] {
    let [hidden, ffn] = [config.hidden_size, config.feed_forward_size];
    let [queries, keys] = [config.query_size(), config.key_value_size()];
    let parts = |names: &[&str], rows: &[usize], columns| {
        let mut parts = TensorMap::new(names, rows, columns);
        parts.names.iter_mut().for_each(|name| *name = format!("model.layers.{layer}.{name}_proj.weight"));
        parts
    };
    [
        parts(&["self_attn.q", "self_attn.k", "self_attn.v"], &[queries, keys, keys], hidden),
        parts(&["self_attn.o"], &[hidden], queries),
        parts(&["mlp.gate", "mlp.up"], &[ffn, ffn], hidden),
        parts(&["mlp.down"], &[hidden], ffn),
    ]
}

/// Tensors one below the other, all `columns` wide, that become weights of one format.
pub(super) struct Stacked<'a> {
    checkpoint: &'a dyn Checkpoint,
    /// Each tensor's description in the file, and its rows.
    tensors: Vec<(&'a TensorInfo, usize)>,
    columns: usize,
    /// The format of the weights.
    pub format: WeightFormat,
}

impl<'a> Stacked<'a> {
    fn new(
        checkpoint: &'a dyn Checkpoint,
        choice: WeightDtype,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Stacked<'a>> {
        let missing = || Error::MissingTensor { path: checkpoint.path().to_owned(), name: name.to_owned() };
        let info = checkpoint.find(name).ok_or_else(missing)?;
        Ok(Stacked { checkpoint, tensors: vec![(info, rows)], columns, format: choice.format(info) })
    }

    /// Returns `true` if their bytes are used as stored.
    pub fn as_stored(&self) -> bool {
        self.format.is_quantised() && self.tensors.iter().all(|(info, _)| info.stored == self.format)
    }

    /// Key by which neighbours are joined.
    fn kind(&self) -> (WeightFormat, bool) {
        (self.format, self.as_stored())
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.tensors.iter().map(|(_, rows)| rows).sum()
    }

    /// Reads a range of their rows, as numbers.
    pub fn values(&self, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.each(range, out, self.columns, |name, rows, out| self.checkpoint.read_rows(name, rows, out))
    }

    /// Reads a range of their rows, as they are stored.
    pub fn blocks(&self, range: Range<usize>, out: &mut [u8]) -> Result<()> {
        let width = self.format.stored_bytes(self.columns);
        self.each(range, out, width, |name, rows, out| self.checkpoint.read_blocks(name, rows, out))
    }

    /// Hands each tensor's share of a range of rows to `read`, with its place in `out`, `width` elements a row.
    fn each<T>(
        &self,
        range: Range<usize>,
        out: &mut [T],
        width: usize,
        read: impl Fn(&str, Range<usize>, &mut [T]) -> Result<()>,
    ) -> Result<()> {
        let mut first = 0;
        for &(info, height) in &self.tensors {
            let [start, end] = [range.start.max(first), range.end.min(first + height)];
            if start < end {
                let target = &mut out[(start - range.start) * width..(end - range.start) * width];
                read(&info.name, start - first..end - first, target)?;
            }
            first += height;
        }
        Ok(())
    }

    /// Notices about tensors that change their format though no format was asked for.
    pub fn notices(&self, choice: WeightDtype) -> Vec<String> {
        let changed = |stored: WeightFormat| match stored {
            WeightFormat::F32 if self.format != WeightFormat::F32 => {
                Some("F32 weights are rounded to BF16; weights in f32 keep them".to_owned())
            }
            _ if stored.is_quantised() && stored != self.format => {
                Some(format!("{} weights are kept as {}", stored.file_name(), self.format.file_name()))
            }
            _ => None,
        };
        let tensors = self.tensors.iter().filter(|_| choice == WeightDtype::Compact);
        tensors.filter_map(|(info, _)| changed(info.stored)).collect()
    }
}
