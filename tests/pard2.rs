//! AMD's drafts as they are published, run as AMD's own code runs them: what was recorded of that code over small models
//! (tests/data/pard2) is what rounds propose, accept and write here.

use std::path::{Path, PathBuf};

use pard::checkpoint::hugging_face::{PROJECTION_FILE, TARGET_BIAS, TARGET_PROJECTION};
use pard::checkpoint::options::SourceOptions;
use pard::checkpoint::resolve::resolve;
use pard::checkpoint::storage::{Bytes, Memory};
use pard::checkpoint::torch_file::{Bf16Tensor, TorchFile, archive};
use pard::checkpoint::{Checkpoint, DraftFiles, ModelFiles};
use pard::decoding::{Costs, Draft, DraftLength, Engine, EngineOptions, Method, Sequence, SequenceOptions};
use pard::low_level::gpu::{CacheFormat, KernelPlan};
use pard::low_level::inspect::Inspect;
use pard::low_level::ops::gradients::TrainingRow;
use pard::low_level::training::{CodRetention, Loss, Network, NetworkOptions, PackedRows, Sample};
use pard::model::{LoadOptions, Model, PassCost, StatesChoice, WeightDtype};
use pard::{Error, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::gpu::device;
use crate::support::tiny_model::write_json;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pard2").join(path)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a recording")).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("token ids")
}

/// As the recordings were made, in f32 throughout.
fn options(states: StatesChoice) -> LoadOptions {
    LoadOptions::default().dtype(WeightDtype::F32).cache(CacheFormat::F32).target_states(states)
}

fn load_target(folder: &Path) -> Model {
    let files = ModelFiles::open(folder).expect("a target's folder");
    Model::upload(device(), files, options(StatesChoice::Auto), &|_, _| ()).expect("a target")
}

fn load_draft(folder: &Path, target: &Model, states: StatesChoice) -> Result<Draft> {
    let files = DraftFiles::open(folder)?.beside(&target.text);
    let draft = Model::upload_draft(device(), files, target, options(states), &|_, _| ())?;
    Draft::new(&draft, target, None)
}

fn sequence_options(drafts: u64) -> SequenceOptions {
    let drafts = DraftLength::Fixed(drafts as usize);
    SequenceOptions::default().method(Method::Pard).drafts(drafts).context(128).run_ahead(Some(false))
}

/// Compares every round that was recorded in `recording`, of the draft in `folder`, and returns their number.
fn replay(recording: &str, folder: &str) -> usize {
    let expected = read_json(&data(recording));
    let target = load_target(&data(recording).parent().expect("a folder").join(target_of(&expected)));
    let mut rounds = 0;
    for run in expected["runs"].as_array().expect("runs") {
        let states = if run["mode"] == "ti" { StatesChoice::Off } else { StatesChoice::Auto };
        let draft = load_draft(&data(folder), &target, states).expect("a draft");
        assert_eq!(draft.model.config().target_layers.is_some(), run["mode"] == "td");
        let room = EngineOptions::default().context(128);
        let engine = Engine::new(&target, Some(&draft), room).expect("an engine");
        let drafts = run["k"].as_u64().expect("K");
        let mut sequence = engine.add(sequence_options(drafts)).expect("a sequence");
        sequence.start(&ids(&run["prompt"])).expect("start");
        for (number, round) in run["rounds"].as_array().expect("rounds").iter().enumerate() {
            let context = format!("{folder}, {}, K = {drafts}, round {number}", run["mode"]);
            sequence.round().expect("round");
            assert_eq!(sequence.proposals().expect("proposals"), ids(&round["proposals"]), "{context}: proposals");
            assert_eq!(sequence.last_tokens(), ids(&round["kept"]), "{context}: tokens");
            assert_eq!(sequence.last_round().accepted as u64, round["accepted"], "{context}: accepted");
            rounds += 1;
        }
        assert_eq!(sequence.tokens(), ids(&run["sequence"]), "{folder}");
    }
    rounds
}

fn target_of(expected: &Value) -> &str {
    expected["target"].as_str().expect("the target's folder")
}

#[test]
fn every_round_is_that_of_amds_code() {
    for (recording, folder, least) in [
        ("qwen3_td/expected.json", "qwen3_td/draft", 54),
        ("llama_td/expected.json", "llama_td/draft", 36),
        ("llama_td/expected_alias.json", "llama_td/draft_alias", 10),
        ("llama_td/expected_edge.json", "llama_td/draft_edge", 10),
        ("pard1/expected.json", "pard1/draft", 10),
        ("special_tokens/expected.json", "special_tokens/draft", 20),
    ] {
        let rounds = replay(recording, folder);
        assert!(rounds >= least, "{folder}: {rounds} rounds");
    }
}

/// The prompts of a recording, one behind the other on caches that hold the last one's beginning, are proposed for as they
/// are alone: what was kept of a beginning is used, and what was cut off is not.
#[test]
fn a_resumed_sequence_reads_the_states_that_were_kept() {
    let target = load_target(&data("qwen3_td/target"));
    let draft = load_draft(&data("qwen3_td/draft"), &target, StatesChoice::Auto).expect("a draft");
    let engine = Engine::new(&target, Some(&draft), EngineOptions::default().context(128)).expect("an engine");
    let mut sequence = engine.add(sequence_options(4)).expect("a sequence");
    let expected = read_json(&data("qwen3_td/expected.json"));
    let runs = expected["runs"].as_array().expect("runs");
    for run in runs.iter().filter(|run| run["mode"] == "td" && run["k"] == 4) {
        let (prompt, rounds) = (ids(&run["prompt"]), run["rounds"].as_array().expect("rounds"));
        for cut in [prompt.len(), prompt.len() - 1, 3] {
            sequence.start(&ids(&run["sequence"])[..prompt.len() + 9]).expect("start");
            sequence.round().expect("round");
            sequence.truncate(cut);
            sequence.resume(&prompt).expect("resume");
            for round in rounds {
                sequence.round().expect("round");
                assert_eq!(sequence.proposals().expect("proposals"), ids(&round["proposals"]), "cut to {cut}");
            }
        }
    }
}

/// Several conversations in the same passes, of target and draft, while caches grow.
#[test]
fn joint_rounds_propose_what_each_sequence_does_alone() {
    let target = load_target(&data("llama_td/target"));
    let draft = load_draft(&data("llama_td/draft"), &target, StatesChoice::Auto).expect("a draft");
    let expected = read_json(&data("llama_td/expected.json"));
    let runs: Vec<&Value> = expected["runs"].as_array().expect("runs").iter().collect();
    let runs: Vec<&Value> = runs.into_iter().filter(|run| run["mode"] == "td" && run["k"] == 4).collect();
    let options = EngineOptions::default().context(128).sequences(runs.len());
    let engine = Engine::new(&target, Some(&draft), options).expect("an engine");
    let free = PassCost::from_points(&[(1, 1.0), (32, 1.01)]);
    let costs = Costs { target: free, draft: PassCost::from_points(&[(1, 0.01), (32, 0.02)]) };
    let mut sequences: Vec<Sequence> = Vec::new();
    for run in &runs {
        let mut sequence = engine.add(sequence_options(4)).expect("a sequence");
        sequence.set_costs(costs.clone());
        sequence.start(&ids(&run["prompt"])).expect("start");
        sequences.push(sequence);
    }
    let mut joint = 0;
    for round in 0..4 {
        let passes = engine.step(&mut sequences.iter_mut().collect::<Vec<_>>()).expect("a step");
        joint += usize::from(passes.len() < sequences.len());
        for (sequence, run) in sequences.iter().zip(&runs) {
            let proposals = sequence.proposals().expect("proposals");
            if proposals.len() == 4 {
                assert_eq!(proposals, ids(&run["rounds"][round]["proposals"]), "round {round}");
            }
            let written = ids(&run["sequence"]);
            let common = sequence.tokens().len().min(written.len());
            assert_eq!(sequence.tokens()[..common], written[..common], "round {round}");
        }
    }
    assert!(joint > 2, "{joint} of 4 rounds were joint");
}

#[test]
fn a_draft_without_its_states_says_so() {
    let target = load_target(&data("qwen3_td/target"));
    let notice = |draft: &Draft| draft.model.notices().join("\n");
    let reads = load_draft(&data("qwen3_td/draft"), &target, StatesChoice::Auto).expect("a draft");
    assert_eq!(notice(&reads), "");
    let asked = load_draft(&data("qwen3_td/draft"), &target, StatesChoice::Off).expect("a draft");
    assert!(notice(&asked).contains("without its target's states"), "{}", notice(&asked));
    // The other pair's target has fewer layers, and states of the same size.
    let folder = copy(&data("qwen3_td/draft"));
    let changed = |key: &str, value: Value| {
        let path = folder.path().join("config.json");
        let mut json = read_json(&data("qwen3_td/draft/config.json"));
        json[key] = value;
        write_json(&path, &json);
        load_draft(folder.path(), &target, StatesChoice::Auto)
    };
    for (key, value) in
        [("pard2_target_layers", serde_json::json!([-1, -2, -4, -10])), ("pard2_target_dim", 512.into())]
    {
        let draft = changed(key, value).expect("a draft for another target");
        assert!(draft.model.config().target_layers.is_none() && notice(&draft).contains(key), "{}", notice(&draft));
    }
    // A projection that is not there is not made up.
    std::fs::remove_file(folder.path().join(PROJECTION_FILE)).expect("removing");
    let error = changed("pard2", true.into()).map(drop).expect_err("no projection");
    assert!(matches!(&error, Error::MissingTensor { name, .. } if name == TARGET_PROJECTION), "{error}");
    load_draft(folder.path(), &target, StatesChoice::Off).expect("it drafts without");
}

fn copy(from: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    copy_to(from, folder.path());
    folder
}

fn copy_to(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copying");
    }
}

/// Special tokens may have other names, as those of Llama 3.0 and 3.1 do from id 128004 on; text may not.
#[test]
fn special_tokens_may_be_named_otherwise() {
    let target = load_target(&data("qwen3_td/target"));
    let draft = load_draft(&data("special_tokens/draft"), &target, StatesChoice::Auto).expect("a draft");
    let [notice] = &draft.notices[..] else { panic!("{:?}", draft.notices) };
    assert!(
        notice.starts_with("5 special tokens have other names") && notice.contains("<|begin_of_text|>"),
        "{notice}"
    );
    let folder = copy(&data("special_tokens/draft"));
    copy_to(&data("special_tokens/tokenizer_swapped"), folder.path());
    let error = load_draft(folder.path(), &target, StatesChoice::Auto).map(drop).expect_err("another language");
    assert!(matches!(error, Error::TokenizerMismatch { id: 37, .. }), "{error}");
}

/// Repositories as they lie in the hub's cache, and the same files in memory: no draft brings a tokenizer along.
#[test]
fn published_drafts_load_from_the_hubs_cache_and_from_memory() {
    let home = tempfile::tempdir().expect("a folder");
    let mut sources = SourceOptions::from_variables(|_| None);
    (sources.hub_cache, sources.offline) = (Some(home.path().to_owned()), true);
    for (name, files, target, reads) in [
        ("amd/PARD-Qwen3-0.6B", "pard1/draft", "qwen3_td/target", false),
        ("amd/PARD2-Qwen3-8B", "qwen3_td/draft", "qwen3_td/target", true),
        ("amd/PARD2-Llama-3.1-8B", "llama_td/draft", "llama_td/target", true),
    ] {
        let repository = home.path().join(format!("models--{}", name.replace('/', "--")));
        let snapshot = repository.join("snapshots/0123abc");
        copy_to(&data(files), &snapshot);
        std::fs::create_dir_all(repository.join("refs")).expect("a folder");
        std::fs::write(repository.join("refs/main"), "0123abc").expect("writing");
        for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            let _ = std::fs::remove_file(snapshot.join(file));
        }
        let target = load_target(&data(target));
        let found = resolve(name, &sources).expect("it is complete");
        let draft = load_draft(&found, &target, StatesChoice::Auto).expect("a draft");
        assert_eq!((draft.model.config().target_layers.is_some(), draft.method()), (reads, Method::Pard), "{name}");

        let mut memory = Memory::new();
        for entry in std::fs::read_dir(&snapshot).expect("a folder") {
            let path = entry.expect("an entry").path();
            let file = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            memory = memory.with(file, std::fs::read(&path).expect("reading"));
        }
        let files = DraftFiles::from_storage(name, &memory).expect("files in memory");
        assert!(files.text.is_none() && files.config == *draft.model.config());
        let upload =
            Model::upload_draft(device(), files.beside(&target.text), &target, LoadOptions::default(), &|_, _| ());
        upload.map(drop).expect("a draft");
        let alone = ModelFiles::from_storage(name, &memory).map(drop).expect_err("it has no tokenizer");
        assert!(alone.to_string().contains("tokenizer.json"), "{alone}");
    }
}

fn torch_file(name: &str) -> Result<TorchFile> {
    let path = data("warp_cases").join(name);
    TorchFile::from_bytes(&path, Bytes::new(std::fs::read(&path).expect("a file")))
}

fn values(file: &TorchFile, name: &str) -> Vec<f32> {
    let shape = &file.find(name).expect("a tensor").shape;
    let rows = if shape.len() > 1 { shape[0] } else { 1 };
    let mut values = vec![0.0; shape.iter().product()];
    file.read_rows(name, 0..rows, &mut values).expect("rows");
    // Row by row and from the middle on, it is the same.
    let width = values.len() / rows;
    let mut last = vec![0.0; width];
    file.read_rows(name, rows - 1..rows, &mut last).expect("a row");
    assert_eq!(last, values[(rows - 1) * width..]);
    values
}

#[test]
fn files_of_torch_are_read_or_refused() {
    let expected = read_json(&data("warp_cases/expected.json"));
    let cases = |kind: &str| expected[kind].as_object().expect("cases").clone();
    let (mut read, mut refused) = (0, 0);
    for (name, case) in cases("read") {
        let file = torch_file(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (tensor, expected) in case["tensors"].as_object().expect("tensors") {
            let shape: Vec<usize> = serde_json::from_value(expected["shape"].clone()).expect("a shape");
            assert_eq!(file.find(tensor).expect("a tensor").shape, shape, "{name}");
            if let Some(expected) = expected["values"].as_array() {
                for (value, expected) in values(&file, tensor).iter().zip(expected) {
                    let expected = expected.as_f64().expect("a number") as f32;
                    assert!((value - expected).abs() <= 1e-6 * expected.abs(), "{name}: {value}, not {expected}");
                }
            }
        }
        read += 1;
    }
    for (name, _) in cases("refuse") {
        let error = torch_file(&name).and_then(|file| file.expect(TARGET_PROJECTION, &[6, 8]).map(drop));
        let error = error.expect_err(&name).to_string();
        assert!(error.contains(&name), "{error}");
        refused += 1;
    }
    // What torch seldom or never writes may be refused, but not silently, and not misread.
    for (name, _) in cases("either") {
        let error = torch_file(&name).map(drop).expect_err(&name);
        assert!(matches!(error, Error::Damaged { .. }), "{name}: {error}");
    }
    assert_eq!((read, refused), (12, 10));
}

/// What `pard adapt` writes is what is read, and begins where torch has it.
#[test]
fn a_file_that_is_written_is_read() {
    let weights: Vec<u8> =
        (0..48u16).flat_map(|index| half::bf16::from_f32(f32::from(index) - 20.0).to_le_bytes()).collect();
    let bias = &weights[..12];
    let tensors = [
        Bf16Tensor { name: TARGET_BIAS, shape: &[6], bytes: bias },
        Bf16Tensor { name: TARGET_PROJECTION, shape: &[6, 8], bytes: &weights },
    ];
    let bytes = archive("warp_model", &tensors).expect("an archive");
    let file = TorchFile::from_bytes(Path::new("made"), Bytes::new(bytes.clone())).expect("a file of torch");
    let expected: Vec<f32> = (0..48).map(|index| index as f32 - 20.0).collect();
    assert_eq!(values(&file, TARGET_PROJECTION), expected);
    assert_eq!(values(&file, TARGET_BIAS), expected[..6]);
    let at = bytes.windows(weights.len()).position(|window| window == weights).expect("the values");
    assert!(at.is_multiple_of(64), "{at}");
    // No prefix of it, and no file with a byte changed, does anything but read or fail.
    for end in 0..bytes.len() {
        assert!(TorchFile::from_bytes(Path::new("cut"), Bytes::new(bytes[..end].to_vec())).is_err(), "{end}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x41;
        if let Ok(file) = TorchFile::from_bytes(Path::new("changed"), Bytes::new(changed)) {
            file.tensors().iter().for_each(|tensor| drop(values(&file, &tensor.name)));
        }
    }
}

/// A training step against AMD's collator, wrapper and loss: labels of all rows and what each sees; and, where there are no
/// masks, loss and gradients with the target's states and without them. AMD also lays out masks before the first token of
/// an answer has been read, and rows that see no token at all; no round of decoding has those, and they are not laid out here.
#[test]
fn a_training_step_is_that_of_amds_code() {
    let expected = read_json(&data("training/expected.json"));
    let target = load_target(&data("qwen3_td/target"));
    let files = DraftFiles::open(&data("qwen3_td/draft")).expect("a draft");
    let samples: Vec<Vec<u32>> = serde_json::from_value(expected["input_ids"].clone()).expect("token ids");
    let plan = KernelPlan { cache: CacheFormat::F32, ..device().default_plan() };
    let recipe = NetworkOptions {
        config: &files.config,
        checkpoint: &*files.checkpoint,
        layers: &[0, 1],
        mask_token: 400,
        freeze_embeddings: false,
        vocabulary: None,
        rows: 128,
        positions: 64,
        teacher: Some(&target.weights),
        loss: Loss::TEACHER,
        target_layers: &files.config.target_layers.as_ref().expect("it reads states").layers,
    };
    let mut seen = 0;
    for case in expected["cases"].as_array().expect("cases") {
        let segments = case["para_num"].as_u64().expect("a number") as usize;
        let labels: Vec<Vec<i64>> = serde_json::from_value(case["labels"].clone()).expect("labels");
        let retention = CodRetention { segments, ratio: 1.0, least: 1.0 };
        let mut packed = PackedRows::default();
        for (tokens, labels) in samples.iter().zip(&labels) {
            let labelled = (0..tokens.len()).map(|at| at > 0 && labels[at] >= 0).collect();
            let sample = Sample { tokens: tokens.clone(), labelled };
            let part = PackedRows::of(&sample, &retention, 400, &mut fastrand::Rng::with_seed(1));
            // Rows of the recording: segment by segment, all positions of each.
            let recorded = |row: usize| part.segments[row] * tokens.len() + part.rows[row].position as usize;
            for (row, label) in part.labels.iter().enumerate() {
                // There a label stands where its token is, after the row that predicts it.
                assert_eq!(label.map_or(-100, i64::from), labels[recorded(row) + 1], "row {row}");
                let TrainingRow { context_first, context_end, chain_first, .. } = part.rows[row];
                let sees = (context_first as usize..context_end as usize).chain(chain_first as usize..=row);
                let mut sees: Vec<usize> = sees.map(recorded).collect();
                sees.sort_unstable();
                if let Some(visible) = case["visible"].as_array() {
                    let visible: Vec<usize> = serde_json::from_value(visible[recorded(row)].clone()).expect("columns");
                    assert_eq!(sees, visible, "row {row}");
                    seen += 1;
                }
            }
            packed.append(part);
        }
        if segments > 1 {
            continue;
        }
        for (name, reads) in [("kept", true), ("dropped", false)] {
            let network = Network::new(device(), &plan, &recipe).expect("a network");
            let count = packed.labelled() as f32;
            let losses = network.learn_reading(&packed, 1.0 / count, |_| reads).expect("a pass");
            let labelled = losses.iter().zip(&packed.labels).filter(|(_, label)| label.is_some());
            let loss = labelled.map(|(row, _)| 0.1 * row.cross_entropy + row.divergence).sum::<f32>() / count;
            let close = |what: &str, ours: f32, key: &str| {
                let theirs = case["loss"][name][key].as_f64().expect("a number") as f32;
                assert!((ours - theirs).abs() <= 2e-3 * theirs.max(1e-3), "{name}: {what} {ours}, not {theirs}");
            };
            close("loss", loss, "loss");
            let norm = |tensor: &str| {
                let parameter = network.parameters().find(|parameter| parameter.tensors()[0].0 == tensor);
                let squares = parameter.expect("a parameter").buffers().into_iter().map(|([_, gradient], len)| {
                    let values: Vec<f32> = gradient.read(device(), 0, len).expect("reading back");
                    values.iter().map(|value| value * value).sum::<f32>()
                });
                squares.sum::<f32>().sqrt()
            };
            close("gradient of the projection", norm(TARGET_PROJECTION), "target_proj_grad_norm");
            close("gradient of the embedding", norm("model.embed_tokens.weight"), "embed_grad_norm");
        }
    }
    assert!(seen > 120, "{seen} rows were compared");
}
