//! Models with mixtures of experts: each arrangement of their files, the layers of Qwen3-30B-A3B, and what is refused.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;

use pard::Error;
use pard::checkpoint::config::{Config, Experts, Family};
use pard::checkpoint::gguf::Gguf;
use pard::checkpoint::hugging_face::parse_config;
use pard::checkpoint::storage::Bytes;
use pard::checkpoint::{Checkpoint, ModelFiles, TensorInfo};
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{Buffer, CacheFormat};
use pard::low_level::ops::{MAX_ROWS, Phase, WeightFormat};
use pard::model::{PassCost, Tuning, WeightDtype, Weights};
use serde_json::{Value, json};

use crate::comparison::relative_error;
use crate::fit::expect_allocated;
use crate::gguf::writer::{Writer, element};
use crate::ops::same_bits;
use crate::oracle::blocks::widen;
use crate::support::candle_reference::{self, CandleModel};
use crate::support::gpu::{device, plan, upload_tensors};
use crate::support::memory::Memory;
use crate::support::random::Random;
use crate::support::tiny_model::{Recipe, Stored, Tensors, write_json, write_safetensors};

/// Tokens of a prompt, and rows of a round after it.
const PROMPT: usize = 37;
const ROWS: usize = 13;

/// The logits of rows of a round after a prompt.
fn logits(model: &Arc<Weights>) -> Vec<f32> {
    let vocab = model.config().vocab_size;
    let choices = Buffer::storage(device(), "choices", 4 * MAX_ROWS as u64).expect("a small buffer");
    let sequence = ModelRunner::new(model, 200, vocab, &choices).expect("a small model fits");
    let tokens = tokens(vocab);
    sequence.prefill(&tokens[..PROMPT], 0).expect("a prompt");
    sequence.run(Phase::Decode, &tokens[PROMPT..], PROMPT, ROWS).expect("rows");
    sequence.logits(ROWS).expect("logits")
}

fn tokens(vocab: usize) -> Vec<u32> {
    Random::new(3).indices(PROMPT + ROWS, vocab)
}

/// Positions of the rows after the prompt.
fn positions() -> Vec<usize> {
    (PROMPT..PROMPT + ROWS).collect()
}

fn agrees(what: &str, actual: &[f32], expected: &[Vec<f32>]) {
    for (row, (actual, expected)) in actual.chunks(expected[0].len()).zip(expected).enumerate() {
        let error = relative_error(actual, expected);
        assert!(error <= 1e-4, "{what}, row {row}: {error:e}");
    }
}

/// Compares the logits of `model` with candle's of `tensors`.
fn agrees_with_candle(what: &str, recipe: &Recipe, tensors: &Tensors, model: &Arc<Weights>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_safetensors(folder.path(), tensors, 1, WeightFormat::F32);
    write_json(&folder.path().join("config.json"), &recipe.config_json());
    let expected = candle_reference::logits(folder.path(), &tokens(recipe.config.vocab_size), &positions());
    agrees(what, &logits(model), &expected);
}

/// The tensors of experts one below the other under `name`, made of those that `parts` name for each.
fn together(tensors: &Tensors, experts: &Experts, prefix: &str, parts: &[&str]) -> Stored {
    let part = |expert: usize, part: &str| &tensors[&format!("{prefix}.{expert}.{part}.weight")];
    let [rows, columns] = part(0, parts[0]).shape[..] else { panic!("a matrix") };
    let values = (0..experts.count).flat_map(|expert| parts.iter().map(move |name| (expert, name)));
    let values = values.flat_map(|(expert, name)| part(expert, name).values.clone()).collect();
    Stored { shape: vec![experts.count, parts.len() * rows, columns], values }
}

/// `tensors` with those of experts replaced by tensors of all of a layer: each a name, and the parts that it is made of.
fn rearranged(recipe: &Recipe, tensors: &Tensors, names: &[(&str, &[&str])]) -> Tensors {
    let mut new: Tensors =
        tensors.iter().filter(|(name, _)| !name.contains(".experts.")).map(|(n, t)| (n.clone(), t.clone())).collect();
    for layer in 0..recipe.config.layers {
        let Some(experts) = recipe.config.experts_of(layer) else { continue };
        let prefix = format!("model.layers.{layer}.mlp.experts");
        for (name, parts) in names {
            new.insert(format!("{prefix}.{name}"), together(tensors, experts, &prefix, parts));
        }
    }
    new
}

#[test]
fn experts_may_be_a_tensor_each_or_lie_in_tensors_of_all() {
    let plan = plan(CacheFormat::F32);
    for recipe in [Recipe::qwen3_moe(7), Recipe::partly_mixed(7)] {
        let tensors = recipe.tensors();
        let separate = logits(&upload_tensors(&recipe.config, tensors.clone(), &plan));
        let stacked: [(&str, &[&str]); 3] = [
            ("gate_proj.weight", &["gate_proj"]),
            ("up_proj.weight", &["up_proj"]),
            ("down_proj.weight", &["down_proj"]),
        ];
        let fused: [(&str, &[&str]); 2] = [("gate_up_proj", &["gate_proj", "up_proj"]), ("down_proj", &["down_proj"])];
        for (what, names) in [("stacked", &stacked[..]), ("fused", &fused)] {
            let tensors = rearranged(&recipe, &tensors, names);
            same_bits(what, &logits(&upload_tensors(&recipe.config, tensors, &plan)), &separate);
        }
        // A folder with tensors of three axes.
        let folder = tempfile::tempdir().expect("a temporary folder");
        recipe.write(folder.path());
        write_safetensors(folder.path(), &rearranged(&recipe, &tensors, &fused), recipe.shards, WeightFormat::Bf16);
        let files = ModelFiles::open(folder.path()).expect("a model");
        assert_eq!(files.config, recipe.config);
        let model =
            Weights::upload(device(), &plan, &files.config, &*files.checkpoint, WeightDtype::Compact, &|_, _| ());
        same_bits("a folder", &logits(&Arc::new(model.expect("upload"))), &separate);
    }
}

/// llama.cpp's name for a tensor, and its number for the format that it is given.
fn in_gguf(name: &str) -> String {
    const PARTS: [(&str, &str); 17] = [
        ("model.embed_tokens.", "token_embd."),
        ("model.norm.", "output_norm."),
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate.", "ffn_gate_inp."),
        ("mlp.experts.gate_proj", "ffn_gate_exps"),
        ("mlp.experts.up_proj", "ffn_up_exps"),
        ("mlp.experts.down_proj", "ffn_down_exps"),
        ("lm_head.", "output."),
        ("mlp.", "ffn_"),
    ];
    let renamed = PARTS.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
    // Experts of their own: blk.0.ffn_experts.5.gate_proj.weight.
    match renamed.split('.').collect::<Vec<_>>()[..] {
        [blk, layer, "ffn_experts", expert, part, "weight"] => {
            format!("{blk}.{layer}.ffn_{}.{expert}.weight", part.trim_end_matches("_proj"))
        }
        _ => renamed.replace("_proj", ""),
    }
}

/// A GGUF file of `tensors`: matrices in `format`, the router and vectors in F32.
fn gguf(config: &Config, tensors: &Tensors, format: WeightFormat) -> Writer {
    let experts = config.experts.as_ref().expect("experts");
    let count = |value: usize| value as u32;
    let mut writer = Writer::default().key("general.architecture", "qwen3moe");
    for (name, value) in [
        ("block_count", config.layers),
        ("context_length", config.context),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.feed_forward_size),
        ("attention.head_count", config.heads),
        ("attention.head_count_kv", config.kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("expert_count", experts.count),
        ("expert_used_count", experts.used),
        ("expert_feed_forward_length", experts.feed_forward_size),
    ] {
        writer = writer.key(&format!("qwen3moe.{name}"), count(value));
    }
    writer = writer
        .key("qwen3moe.attention.layer_norm_rms_epsilon", config.norm_epsilon as f32)
        .key("qwen3moe.rope.freq_base", config.rope_theta as f32);
    for (name, stored) in tensors {
        let is_float = stored.shape.len() == 1 || name.ends_with("mlp.gate.weight");
        let (number, format) =
            if is_float { (element::F32, WeightFormat::F32) } else { (format.gguf_number(), format) };
        let mut bytes = vec![0; format.stored_bytes(stored.values.len())];
        format.store(&stored.values, &mut bytes);
        let shape: Vec<u64> = stored.shape.iter().map(|&length| length as u64).collect();
        writer = writer.tensor(&in_gguf(name), &shape, number, bytes);
    }
    writer
}

/// Opens what `writer` writes.
fn opened(writer: &Writer) -> pard::Result<(Config, Gguf)> {
    let gguf = Gguf::from_bytes(Path::new("model.gguf"), Bytes::new(writer.bytes()))?;
    Ok((gguf.config()?, gguf))
}

/// The tensors as their matrices come out of `format`.
fn rounded(tensors: &Tensors, format: WeightFormat) -> Tensors {
    let of_one = |(name, stored): (&String, &Stored)| {
        let mut stored = stored.clone();
        if stored.shape.len() > 1 && !name.ends_with("mlp.gate.weight") {
            let mut bytes = vec![0; format.stored_bytes(stored.values.len())];
            format.store(&stored.values, &mut bytes);
            stored.values = widen(format, &bytes);
        }
        (name.clone(), stored)
    };
    tensors.iter().map(of_one).collect()
}

#[test]
fn experts_of_gguf_files_agree_with_candle() {
    let plan = plan(CacheFormat::F32);
    let mut recipe = Recipe::qwen3_moe(8);
    recipe.duplicate_head = false;
    let tensors = recipe.tensors();
    let stacked: [(&str, &[&str]); 3] =
        [("gate_proj.weight", &["gate_proj"]), ("up_proj.weight", &["up_proj"]), ("down_proj.weight", &["down_proj"])];
    for format in [WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::Q5_1] {
        let upload = |tensors: &Tensors| {
            let (config, gguf) = opened(&gguf(&recipe.config, tensors, format)).expect("a good file");
            assert_eq!(config, recipe.config);
            let model = Weights::upload(device(), &plan, &config, &gguf, WeightDtype::Compact, &|_, _| ());
            Arc::new(model.expect("upload"))
        };
        let model = upload(&rearranged(&recipe, &tensors, &stacked));
        agrees_with_candle(&format!("{format:?}"), &recipe, &rounded(&tensors, format), &model);
        same_bits("separate experts", &logits(&upload(&tensors)), &logits(&model));
    }
}

/// Experts of the large model that differ; the others repeat them, layer by layer in another order.
const DISTINCT: usize = 8;

/// A model of large layers: small tensors, and experts in blocks of Q4_0.
struct Large {
    small: Memory,
    infos: Vec<TensorInfo>,
    experts: BTreeMap<&'static str, [Vec<u8>; DISTINCT]>,
}

impl Large {
    fn new(config: &Config, small: Tensors, random: &mut Random) -> Large {
        let format = WeightFormat::Q4_0;
        let inner = config.experts.as_ref().expect("experts").feed_forward_size;
        let shapes = [("gate_proj", [inner, config.hidden_size]), ("up_proj", [inner, config.hidden_size])];
        let shapes = shapes.into_iter().chain([("down_proj", [config.hidden_size, inner])]);
        let small = Memory::new(small);
        let mut infos = small.tensors().to_vec();
        let mut experts = BTreeMap::new();
        for (part, [rows, columns]) in shapes {
            let blocks = |_| {
                let mut blocks = vec![0; rows * format.stored_bytes(columns)];
                format.store(&random.normals(rows * columns, 1.0 / (columns as f32).sqrt()), &mut blocks);
                blocks
            };
            experts.insert(part, [0; DISTINCT].map(blocks));
            let info = |name| TensorInfo { name, shape: vec![rows, columns], stored: format, bytes: 0 };
            let names = (0..config.layers).flat_map(|layer| {
                (0..config.experts_of(layer).map_or(0, |experts| experts.count))
                    .map(move |expert| format!("model.layers.{layer}.mlp.experts.{expert}.{part}.weight"))
            });
            infos.extend(names.map(info));
        }
        infos.sort_by(|one, other| one.name.cmp(&other.name));
        Large { small, infos, experts }
    }

    /// The blocks of an expert's tensor.
    fn blocks(&self, name: &str) -> Option<&[u8]> {
        let [layer, expert, part] = match name.split('.').collect::<Vec<_>>()[..] {
            ["model", "layers", layer, "mlp", "experts", expert, part, "weight"] => [layer, expert, part],
            _ => return None,
        };
        let [layer, expert] = [layer, expert].map(|number| number.parse::<usize>().expect("a number"));
        Some(&self.experts[part][(expert + 3 * layer) % DISTINCT])
    }

    /// All of it on candle, where equal experts are one tensor.
    fn on_candle(&self, json: &Value) -> CandleModel {
        let mut known: HashMap<*const u8, Tensor> = HashMap::new();
        let mut tensor = |info: &TensorInfo| {
            let make = |values: &[f32]| Tensor::from_slice(values, info.shape.clone(), &candle_core::Device::Cpu);
            let tensor = match self.blocks(&info.name) {
                Some(blocks) => known
                    .entry(blocks.as_ptr())
                    .or_insert_with(|| make(&widen(WeightFormat::Q4_0, blocks)).expect("a tensor"))
                    .clone(),
                None => {
                    let mut values = vec![0.0; info.shape.iter().product()];
                    let rows = values.len() / info.shape.last().expect("a shape");
                    self.small.read_rows(&info.name, 0..rows, &mut values).expect("rows");
                    make(&values).expect("a tensor")
                }
            };
            (info.name.clone(), tensor)
        };
        CandleModel::of(json, self.infos.iter().map(&mut tensor).collect())
    }
}

impl Checkpoint for Large {
    fn path(&self) -> &Path {
        self.small.path()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> pard::Result<()> {
        self.small.read_rows(name, rows, out)
    }

    fn read_blocks(&self, name: &str, rows: Range<usize>, out: &mut [u8]) -> pard::Result<()> {
        let width = out.len() / rows.len();
        out.copy_from_slice(&self.blocks(name).expect("an expert's blocks")[rows.start * width..rows.end * width]);
        Ok(())
    }
}

/// Two layers at the sizes of Qwen3-30B-A3B, with a small vocabulary, in the format that such models are mostly run in.
#[test]
fn layers_of_qwen3_30b_a3b_agree_with_candle() {
    let experts = Experts { count: 128, used: 8, feed_forward_size: 768, normalised: true, layers: vec![true, true] };
    let plain = Recipe::qwen3(9);
    // The feed-forward layers that its tensors are drawn with give way to experts.
    let config = Config {
        hidden_size: 2048,
        layers: 2,
        heads: 32,
        kv_heads: 4,
        head_dim: 128,
        feed_forward_size: 8,
        ..plain.config
    };
    let recipe = Recipe { config, duplicate_head: false, shards: 1, ..plain };
    let mut small = recipe.tensors();
    small.retain(|name, _| !name.contains(".mlp."));
    let mut random = Random::new(10);
    for layer in 0..2 {
        let values = random.bf16_normals(128 * 2048, 2.0 / 2048f32.sqrt());
        small.insert(format!("model.layers.{layer}.mlp.gate.weight"), Stored { shape: vec![128, 2048], values });
    }
    let config = Config { family: Family::Qwen3Moe, experts: Some(experts), ..recipe.config.clone() };
    let files = Large::new(&config, small, &mut random);
    let plan = plan(CacheFormat::F32);
    let model = Weights::upload(device(), &plan, &config, &files, WeightDtype::Compact, &|_, _| ());
    let model = Arc::new(model.expect("upload"));
    let recipe = Recipe { config, ..recipe };
    let mut candle = files.on_candle(&recipe.config_json());
    agrees("30B-A3B", &logits(&model), &candle.logits(&tokens(recipe.config.vocab_size), &positions()));
}

#[test]
fn memory_is_foretold_and_passes_are_measured() {
    for recipe in [Recipe::qwen3_moe(5), Recipe::partly_mixed(5)] {
        let files = Memory::new(recipe.tensors());
        for choice in [
            WeightDtype::Compact,
            WeightDtype::F32,
            WeightDtype::Quantised { layers: WeightFormat::Q8_0, ends: WeightFormat::Q8_0 },
        ] {
            expect_allocated("experts", &recipe.config, &files, choice);
        }
    }
    let recipe = Recipe::qwen3_moe(5);
    let model = upload_tensors(&recipe.config, recipe.tensors(), &plan(CacheFormat::F16));
    let choices = Buffer::storage(device(), "choices", 128).expect("a small buffer");
    let sequence = ModelRunner::new(&model, 64, recipe.config.vocab_size, &choices).expect("a sequence");
    assert!(PassCost::measure(&sequence).expect("times").of(1.0) > 0.0);
    // A table is that of a model whose rows take as many experts.
    let mut fewer = recipe.config.clone();
    fewer.experts.as_mut().expect("experts").used = 1;
    let fewer = upload_tensors(&fewer, recipe.tensors(), &plan(CacheFormat::F16));
    let table = |model: &Weights| Tuning::path(Path::new("tables"), model);
    assert_ne!(table(&fewer), table(&model));
}

fn qwen3_moe(changes: &Value) -> pard::Result<Config> {
    let mut json = json!({
        "model_type": "qwen3_moe", "hidden_size": 96, "intermediate_size": 136, "num_hidden_layers": 4, "head_dim": 32,
        "num_attention_heads": 4, "vocab_size": 300, "max_position_embeddings": 4096,
    });
    for (key, value) in changes.as_object().expect("an object") {
        json[key] = value.clone();
    }
    parse_config(Path::new("config.json"), &json)
}

#[test]
fn config_json_says_which_layers_have_experts() {
    let config = qwen3_moe(&json!({})).expect("a configuration");
    let usual = Experts { count: 128, used: 8, feed_forward_size: 768, normalised: false, layers: vec![true; 4] };
    assert_eq!((config.family, config.experts.as_ref()), (Family::Qwen3Moe, Some(&usual)));
    let given = json!({
        "num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 40, "norm_topk_prob": true,
        "decoder_sparse_step": 2, "mlp_only_layers": [1, 9],
    });
    let layers = vec![false, false, false, true];
    let expected = Experts { count: 6, used: 3, feed_forward_size: 40, normalised: true, layers };
    let config = qwen3_moe(&given).expect("a configuration");
    assert_eq!(config.experts, Some(expected));
    assert_eq!(config.of_layers(&[3, 0]).experts.map(|experts| experts.layers), Some(vec![true, false]));
    assert_eq!(config.of_layers(&[0, 1]).experts, None);
    for without in [json!({"num_experts": 0}), json!({"mlp_only_layers": [0, 1, 2, 3]})] {
        assert_eq!(qwen3_moe(&without).expect("a dense model").experts, None);
    }
    for (key, value) in [
        ("decoder_sparse_step", json!(0)),
        ("num_experts", json!(513)),
        ("num_experts_per_tok", json!(129)),
        ("num_experts_per_tok", json!(0)),
        ("moe_intermediate_size", json!(12)),
        ("norm_topk_prob", json!(1)),
        ("mlp_only_layers", json!(3)),
        ("use_sliding_window", json!(true)),
    ] {
        match qwen3_moe(&json!({ key: value })) {
            Err(Error::Config { field, .. }) => assert_eq!(field, key),
            other => panic!("{key}: {other:?}"),
        }
    }
}

#[test]
fn gguf_files_say_which_layers_have_experts() {
    let recipe = Recipe::partly_mixed(6);
    let normalised =
        |config: &mut Config, normalised| config.experts.as_mut().expect("experts").normalised = normalised;
    let writer = gguf(&recipe.config, &recipe.tensors(), WeightFormat::Bf16);
    let mut expected = Config { tied_head: false, ..recipe.config.clone() };
    normalised(&mut expected, true);
    assert_eq!(opened(&writer).expect("a good file").0, expected);
    let (config, _) = opened(&writer.clone().key("qwen3moe.expert_weights_norm", false)).expect("a good file");
    normalised(&mut expected, false);
    assert_eq!(config, expected);
    // llama.cpp's width of an expert, where the file names none.
    let (config, _) =
        opened(&writer.clone().without("qwen3moe.expert_feed_forward_length").key("qwen3moe.feed_forward_length", 144))
            .expect("a good file");
    assert_eq!(config.experts.map(|experts| experts.feed_forward_size), Some(48));
    for (key, value, reason) in [
        ("expert_gating_func", 2, "supported: 1"),
        ("expert_shared_count", 1, "supported: 0"),
        ("expert_group_count", 4, "supported: 1"),
        ("expert_used_count", 9, "9 of 8 experts"),
    ] {
        let error = opened(&writer.clone().key(&format!("qwen3moe.{key}"), value)).map(drop).expect_err(key);
        assert!(error.to_string().contains(reason), "{key}: {error}");
    }
    let scaled = opened(&writer.clone().key("qwen3moe.expert_weights_scale", 2.5)).map(drop).expect_err("a scale");
    assert!(scaled.to_string().contains("expert_weights_scale"), "{scaled}");
    let mut routerless = writer;
    routerless.tensors.retain(|tensor| !tensor.name.contains("ffn_gate_inp"));
    let error = opened(&routerless).map(drop).expect_err("no router");
    assert!(error.to_string().contains("ffn_gate_inp"), "{error}");
}

/// An expert that is missing, or of another shape, is named before anything is uploaded.
#[test]
fn faulty_experts_are_named() {
    let recipe = Recipe::qwen3_moe(4);
    let upload = |tensors: Tensors| {
        let memory = Memory::new(tensors);
        let plan = plan(CacheFormat::F16);
        Weights::upload(device(), &plan, &recipe.config, &memory, WeightDtype::Compact, &|_, _| ()).map(drop)
    };
    let name = "model.layers.1.mlp.experts.5.up_proj.weight";
    let mut missing = recipe.tensors();
    missing.remove(name);
    assert!(matches!(upload(missing), Err(Error::MissingTensor { name: found, .. }) if found == name));
    let mut wide = recipe.tensors();
    wide.get_mut(name).expect("a tensor").shape.swap(0, 1);
    assert!(matches!(upload(wide), Err(Error::TensorShape { name: found, .. }) if found == name));
}
