//! Maps a checkpoint's tensors to matrices and to the formats they are kept in. Both the plan from the files alone and
//! the upload use it.

use std::collections::BTreeSet;
use std::ops::Range;

use super::weight_dtype::{self, WeightDtype};
use crate::checkpoint::config::{Config, Experts, StateForm};
use crate::checkpoint::hugging_face::{FORMER_PROJECTION, TARGET_PROJECTION};
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, Result};
use crate::ops::{ExpertSizes, WeightFormat};

/// The matrices that `config` asks for, with their shapes; of experts those that Hugging Face's files have.
pub fn expected_matrices(config: &Config) -> Vec<(String, Vec<usize>)> {
    matrices(config, |_| ExpertForm::Separate).collect()
}

/// Checks that `checkpoint` has the matrices that `config` asks for and nothing else of the model, which is checked as a whole
/// before any upload. Returns the number of their weights.
pub(super) fn check_matrices(config: &Config, checkpoint: &dyn Checkpoint) -> Result<u64> {
    check_unused(config, checkpoint)?;
    matrices(config, |experts| experts.form(checkpoint)).try_fold(0, |sum, (name, shape)| {
        checkpoint.expect(&name, &shape)?;
        Ok(sum + shape.iter().map(|&length| length as u64).product::<u64>())
    })
}

fn matrices<'a>(
    config: &'a Config,
    form: impl Fn(&ExpertMap) -> ExpertForm + 'a,
) -> impl Iterator<Item = (String, Vec<usize>)> + 'a {
    let [embedding, head] = end_matrices(config);
    let own = !config.shared_embeddings;
    let ends = [(embedding, own), (head, own && !config.tied_head)];
    let ends = ends.into_iter().filter(|(_, there)| *there).flat_map(|(parts, _)| parts.shapes());
    let layers = (0..config.layers).flat_map(move |layer| {
        let LayerMap { qkv, output, feed_forward } = LayerMap::new(config, layer);
        let feed_forward: Vec<_> = match feed_forward {
            FeedForwardMap::Dense { gate_up, down } => gate_up.shapes().chain(down.shapes()).collect(),
            FeedForwardMap::Experts(experts) => experts.router.shapes().chain(experts.shapes(form(&experts))).collect(),
        };
        qkv.shapes().chain(output.shapes()).chain(feed_forward)
    });
    let projection = projection(config);
    ends.chain(layers).chain(projection.into_iter().flat_map(|parts| parts.shapes()))
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
    let matrices = matrices(config, |experts| experts.form(checkpoint)).map(|(name, _)| name);
    let used: BTreeSet<String> = matrices.chain(vectors(config)).collect();
    let is_left_out = |name: &str| {
        OF_THE_MODEL.iter().any(|start| name.starts_with(start))
            && !UNUSED.iter().any(|end| name.ends_with(end))
            && !used.contains(name)
    };
    let names = checkpoint.tensors().iter().map(|tensor| &*tensor.name).chain(checkpoint.other_tensors());
    match names.into_iter().find(|name| is_left_out(name)) {
        None => Ok(()),
        Some(name) => {
            let reason = "the file holds this tensor, and what it would do in the model is not supported".to_owned();
            Err(Error::Config { path: checkpoint.path().to_owned(), field: name.to_owned(), reason })
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
    fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> + use<> {
        let columns = self.columns;
        self.names.clone().into_iter().zip(self.rows.clone()).map(move |(name, rows)| (name, vec![rows, columns]))
    }

    /// The number of weights.
    pub fn weights(&self) -> u64 {
        (self.rows.iter().sum::<usize>() * self.columns) as u64
    }

    /// Returns the sections that they become: neighbours of one kind are one section.
    pub fn stacks<'a>(&self, checkpoint: &'a dyn Checkpoint, choice: WeightDtype) -> Result<Vec<Stacked<'a>>> {
        let mut stacks: Vec<Stacked> = Vec::new();
        for (name, &height) in self.names.iter().zip(&self.rows) {
            let of_one = Stacked::new(checkpoint, choice, [(name, 0..height)], self.columns)?;
            match stacks.last_mut() {
                Some(last) if last.kind() == of_one.kind() => last.tensors.extend(of_one.tensors),
                _ => stacks.push(of_one),
            }
        }
        Ok(stacks)
    }

    /// Returns gate and up in a common format.
    pub fn pair<'a>(&self, checkpoint: &'a dyn Checkpoint, choice: WeightDtype) -> Result<Stacked<'a>> {
        // A lane's gate and up are read alike.
        Stacked::new(checkpoint, choice, self.names.iter().zip(self.rows.iter().map(|&rows| 0..rows)), self.columns)
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

/// The matrices of a layer.
pub(super) struct LayerMap {
    /// q, k and v.
    pub qkv: TensorMap,
    pub output: TensorMap,
    pub feed_forward: FeedForwardMap,
}

/// Those of its feed-forward layer.
pub(super) enum FeedForwardMap {
    Dense {
        /// A pair.
        gate_up: TensorMap,
        down: TensorMap,
    },
    Experts(ExpertMap),
}

impl LayerMap {
    /// Those of layer `layer`.
    pub fn new(config: &Config, layer: usize) -> LayerMap {
        let (hidden, ffn) = (config.hidden_size, config.feed_forward_size);
        let [queries, keys] = [config.query_size(), config.key_value_size()];
        let parts = |names: &[&str], rows: &[usize], columns| {
            let mut parts = TensorMap::new(names, rows, columns);
            parts.names.iter_mut().for_each(|name| *name = format!("model.layers.{layer}.{name}.weight"));
            parts
        };
        let feed_forward = match config.experts_of(layer) {
            None => FeedForwardMap::Dense {
                gate_up: parts(&["mlp.gate_proj", "mlp.up_proj"], &[ffn, ffn], hidden),
                down: parts(&["mlp.down_proj"], &[hidden], ffn),
            },
            Some(experts) => FeedForwardMap::Experts(ExpertMap {
                router: parts(&["mlp.gate"], &[experts.count], hidden),
                prefix: format!("model.layers.{layer}.mlp.experts"),
                experts: experts.clone(),
                hidden,
            }),
        };
        let projections = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        LayerMap {
            qkv: parts(&projections, &[queries, keys, keys], hidden),
            output: parts(&["self_attn.o_proj"], &[hidden], queries),
            feed_forward,
        }
    }

    /// Multiplications that a row takes.
    pub fn multiplications(&self) -> u64 {
        let feed_forward = match &self.feed_forward {
            FeedForwardMap::Dense { gate_up, down } => gate_up.weights() + down.weights(),
            FeedForwardMap::Experts(experts) => experts.router.weights() + experts.multiplications(),
        };
        self.qkv.weights() + self.output.weights() + feed_forward
    }
}

/// The matrices of a layer that is a mixture of experts.
pub(super) struct ExpertMap {
    pub router: TensorMap,
    /// Prefix of the names of the experts' tensors.
    prefix: String,
    pub experts: Experts,
    hidden: usize,
}

/// Arrangement of the experts' matrices in files.
#[derive(Clone, Copy)]
enum ExpertForm {
    /// A tensor for each: Hugging Face's files, and older ones of llama.cpp.
    Separate,
    /// Gates, ups and downs of all experts are a tensor each, `[experts, rows, columns]`: llama.cpp's files.
    Stacked,
    /// Gates and ups of all experts are one tensor, `[experts, gates and ups, columns]`, and so are downs: as `transformers` 5
    /// holds them.
    Fused,
}

impl ExpertMap {
    fn form(&self, checkpoint: &dyn Checkpoint) -> ExpertForm {
        let has = |name: &str| checkpoint.find(&format!("{}.{name}", self.prefix)).is_some();
        if has("gate_up_proj") {
            ExpertForm::Fused
        } else if has("gate_proj.weight") {
            ExpertForm::Stacked
        } else {
            ExpertForm::Separate
        }
    }

    /// Each tensor's name and shape.
    fn shapes(&self, form: ExpertForm) -> Vec<(String, Vec<usize>)> {
        let Experts { count, feed_forward_size: inner, .. } = self.experts;
        let (prefix, hidden) = (&self.prefix, self.hidden);
        let parts = [("gate_proj", [inner, hidden]), ("up_proj", [inner, hidden]), ("down_proj", [hidden, inner])];
        match form {
            ExpertForm::Separate => {
                let of_one = |expert: usize| {
                    parts.map(|(part, shape)| (format!("{prefix}.{expert}.{part}.weight"), shape.to_vec()))
                };
                (0..count).flat_map(of_one).collect()
            }
            ExpertForm::Stacked => parts
                .map(|(part, [rows, columns])| (format!("{prefix}.{part}.weight"), vec![count, rows, columns]))
                .into(),
            ExpertForm::Fused => vec![
                (format!("{prefix}.gate_up_proj"), vec![count, 2 * inner, hidden]),
                (format!("{prefix}.down_proj"), vec![count, hidden, inner]),
            ],
        }
    }

    /// Sizes of gates and ups, and of downs.
    pub fn sizes(&self) -> [ExpertSizes; 2] {
        let Experts { count, feed_forward_size: inner, .. } = self.experts;
        [
            ExpertSizes { count, outputs: inner, columns: self.hidden, pair: 2 },
            ExpertSizes { count, outputs: self.hidden, columns: inner, pair: 1 },
        ]
    }

    /// Multiplications that a row takes in its experts.
    fn multiplications(&self) -> u64 {
        let of_one: usize = self.sizes().iter().map(|sizes| sizes.rows() * sizes.columns).sum();
        (self.experts.used * of_one) as u64
    }

    /// The router, whose products are in f32.
    pub fn router<'a>(&self, checkpoint: &'a dyn Checkpoint) -> Result<Stacked<'a>> {
        let TensorMap { names, rows, columns } = &self.router;
        Stacked::new(checkpoint, WeightDtype::F32, [(&names[0], 0..rows[0])], *columns)
    }

    /// The rows of gates and ups, and of downs, expert by expert, each in one format.
    pub fn stacks<'a>(&self, checkpoint: &'a dyn Checkpoint, choice: WeightDtype) -> Result<[Stacked<'a>; 2]> {
        let form = self.form(checkpoint);
        let names: Vec<String> = self.shapes(form).into_iter().map(|(name, _)| name).collect();
        let Experts { count, feed_forward_size: inner, .. } = self.experts;
        let of_expert = |expert: usize, outputs: usize| expert * outputs..(expert + 1) * outputs;
        let pieces: [Vec<(&String, Range<usize>)>; 2] = match form {
            ExpertForm::Separate => [
                names.chunks(3).flat_map(|of_one| [(&of_one[0], 0..inner), (&of_one[1], 0..inner)]).collect(),
                names.chunks(3).map(|of_one| (&of_one[2], 0..self.hidden)).collect(),
            ],
            ExpertForm::Stacked => [
                (0..count).flat_map(|at| [0, 1].map(|part| (&names[part], of_expert(at, inner)))).collect(),
                vec![(&names[2], 0..count * self.hidden)],
            ],
            ExpertForm::Fused => [vec![(&names[0], 0..2 * count * inner)], vec![(&names[1], 0..count * self.hidden)]],
        };
        let [gate_up, down] = pieces;
        Ok([Stacked::new(checkpoint, choice, gate_up, self.hidden)?, Stacked::new(checkpoint, choice, down, inner)?])
    }
}

/// Rows of tensors one below the other, all `columns` wide, that become weights of one format.
pub(super) struct Stacked<'a> {
    checkpoint: &'a dyn Checkpoint,
    /// Each tensor's description in the file, and those of its rows that are taken.
    tensors: Vec<(&'a TensorInfo, Range<usize>)>,
    columns: usize,
    /// The format of the weights.
    pub format: WeightFormat,
}

impl<'a> Stacked<'a> {
    /// Some rows of each of some tensors, in the format that holds all of them.
    fn new<'n>(
        checkpoint: &'a dyn Checkpoint,
        choice: WeightDtype,
        tensors: impl IntoIterator<Item = (&'n String, Range<usize>)>,
        columns: usize,
    ) -> Result<Stacked<'a>> {
        let found = |(name, rows): (&String, Range<usize>)| match checkpoint.find(name) {
            Some(info) => Ok((info, rows)),
            None => Err(Error::MissingTensor { path: checkpoint.path().to_owned(), name: name.clone() }),
        };
        let tensors = tensors.into_iter().map(found).collect::<Result<Vec<_>>>()?;
        let formats = tensors.iter().map(|(info, _)| choice.format(info));
        let format = formats.reduce(weight_dtype::common).unwrap_or(WeightFormat::F32);
        Ok(Stacked { checkpoint, tensors, columns, format })
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
        self.tensors.iter().map(|(_, rows)| rows.len()).sum()
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
        for (info, taken) in &self.tensors {
            let [start, end] = [range.start.max(first), range.end.min(first + taken.len())];
            if start < end {
                let target = &mut out[(start - range.start) * width..(end - range.start) * width];
                read(&info.name, taken.start + start - first..taken.start + end - first, target)?;
            }
            first += taken.len();
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
