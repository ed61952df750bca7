//! Uses of the library by applications: models from memory or storage of their own, answers as streams, several at once,
//! rounds driven one at a time on a device that the application draws with.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use futures_core::Stream;
use pard::checkpoint::ModelFiles;
use pard::checkpoint::options::SourceOptions;
use pard::checkpoint::resolve;
use pard::checkpoint::storage::{Bytes, Memory, Storage};
use pard::decoding::{AnswerStream, Completion, DraftLength, Engine, EngineOptions, Piece, SamplingParams};
use pard::error::OptionName;
use pard::low_level::gpu::wgpu;
use pard::{
    Device, Draft, Error, FinishReason, Generation, Limits, LoadOptions, Message, Method, Model, Prompt, Rendering,
    Result, Sequence, SequenceOptions,
};

use crate::support::gpu::device;
use crate::support::tiny_model::Recipe;

/// A small model's folder, in two shards.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embedding");
    std::fs::create_dir_all(&folder).expect("a folder");
    Recipe::qwen3(61).write(&folder);
    folder
});

static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let files = ModelFiles::open(&FOLDER).expect("the model opens");
    Model::upload(device(), files, LoadOptions::default(), &|_, _| ()).expect("upload")
});

fn prompt() -> Vec<u32> {
    MODEL.text.chat_tokens(&[Message::new("user", "the other thing")], Rendering::default()).expect("a prompt")
}

fn limits() -> Limits {
    Limits::default().max_tokens(24)
}

/// A decoder for `model`, which proposes its own tokens; they are accepted, since they are those it would choose.
fn decoder(model: &Model) -> Sequence {
    let draft = Draft::new(model, model, Some(3)).expect("a draft");
    let options = SequenceOptions::default().method(Method::Vsd).drafts(DraftLength::Fixed(3)).context(96);
    Sequence::new(&model.weights, Some(&draft), options).expect("a decoder")
}

/// The answer that all ways to it have to give.
fn expected() -> (String, Vec<u32>) {
    let mut decoder = decoder(&MODEL);
    let mut generation = Generation::start(&mut decoder, &MODEL.text, &prompt(), limits()).expect("a start");
    let text = generation.by_ref().collect::<Result<String>>().expect("a text");
    (text, generation.output().to_vec())
}

fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("the folder").flatten();
    let read = |path: PathBuf| std::fs::read(path).expect("a file");
    entries.map(|entry| (entry.file_name().into_string().expect("UTF-8"), read(entry.path()))).collect()
}

/// An application's own storage: one file, in which no byte is what it seems.
struct Vault {
    files: BTreeMap<String, Vec<u8>>,
}

impl Storage for Vault {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("vault:").join(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Bytes> {
        let sealed = self.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Bytes::new(sealed.iter().map(|byte| byte ^ 0x5a).collect::<Vec<u8>>()))
    }
}

/// Checks that both hold the same model.
fn assert_same(one: &ModelFiles, other: &ModelFiles) {
    assert_eq!(one.config, other.config);
    assert_eq!(one.checkpoint.tensors(), other.checkpoint.tensors());
    for info in one.checkpoint.tensors().iter().step_by(5) {
        let columns = info.shape.last().copied().expect("a shape");
        let [mut ours, mut theirs] = [vec![0.0; columns], vec![1.0; columns]];
        one.checkpoint.read_rows(&info.name, 0..1, &mut ours).expect("a row");
        other.checkpoint.read_rows(&info.name, 0..1, &mut theirs).expect("a row");
        assert_eq!(ours, theirs, "{}", info.name);
    }
    let messages = [Message::new("user", "naïve 日本")];
    let tokens = |files: &ModelFiles| files.text.chat_tokens(&messages, Rendering::default()).expect("tokens");
    assert_eq!(tokens(one), tokens(other));
    assert_eq!(one.text.stop_tokens, other.text.stop_tokens);
}

#[test]
fn a_model_may_lie_in_memory_or_in_an_applications_own_storage() {
    let on_disk = ModelFiles::open(&FOLDER).expect("the folder opens");
    let files = files_of(&FOLDER);
    let memory = files.iter().fold(Memory::new(), |memory, (name, bytes)| memory.with(name, bytes.clone()));
    let in_memory = ModelFiles::from_storage("small", &memory).expect("memory opens");
    assert_eq!(in_memory.name(), "small");
    assert_same(&on_disk, &in_memory);

    let seal = |bytes: &Vec<u8>| bytes.iter().map(|byte| byte ^ 0x5a).collect();
    let mut vault = Vault { files: files.iter().map(|(name, bytes)| (name.clone(), seal(bytes))).collect() };
    let sealed = ModelFiles::from_storage("sealed", &vault).expect("the vault opens");
    assert_same(&on_disk, &sealed);
    // It runs, too, and writes what the other does.
    let model = Model::upload(device(), sealed, LoadOptions::default(), &|_, _| ()).expect("upload");
    let mut decoder = decoder(&model);
    let generation = Generation::start(&mut decoder, &model.text, &prompt(), limits()).expect("a start");
    assert_eq!(generation.collect::<Result<String>>().expect("a text"), expected().0);

    let tokenizer = vault.files.remove("tokenizer.json").expect("a tokenizer");
    assert!(matches!(ModelFiles::from_storage("sealed", &vault), Err(Error::NoModel { .. })));
    vault.files.insert("tokenizer.json".to_owned(), tokenizer);
    // Faults name the file by the storage's own name for it.
    vault.files.get_mut("model-00002-of-00002.safetensors").expect("a shard").truncate(100);
    let message = ModelFiles::from_storage("sealed", &vault).err().expect("a fault").to_string();
    assert!(message.contains("vault:") && message.contains("model-00002-of-00002.safetensors"), "{message}");
    vault.files.remove("model-00002-of-00002.safetensors");
    assert!(matches!(ModelFiles::from_storage("sealed", &vault), Err(Error::Damaged { .. })));
    assert!(
        matches!(ModelFiles::from_storage("nothing", &Memory::new()), Err(Error::NoModel { name, .. }) if name == "nothing")
    );
    let gguf = Memory::new().with("x.gguf", b"GGUF");
    assert!(matches!(ModelFiles::from_storage("x", &gguf), Err(Error::Damaged { .. })));
}

#[test]
fn a_gguf_file_may_lie_in_memory() {
    let path = match resolve::resolve("smollm2", &SourceOptions::from_env()) {
        Ok(path) => path,
        Err(error) => return eprintln!("SKIPPED: a GGUF file in memory: {error}"),
    };
    let on_disk = ModelFiles::open(&path).expect("the file opens");
    let bytes = std::fs::read(&path).expect("its bytes");
    assert_same(&on_disk, &ModelFiles::from_gguf("smollm2", Bytes::new(bytes)).expect("memory opens"));
}

fn pieces(stream: &mut AnswerStream) -> Vec<Result<Piece>> {
    let mut pieces = Vec::new();
    while let Some(piece) = pollster::block_on(poll_fn(|context| Pin::new(&mut *stream).poll_next(context))) {
        pieces.push(piece);
    }
    pieces
}

#[test]
fn pieces_and_generations_have_the_log_probabilities_of_their_tokens() {
    let sampling = SamplingParams::default().top_logprobs(Some(1));
    let asked = || {
        let mut decoder = decoder(&MODEL);
        decoder.set_sampling(sampling.clone()).expect("options in range");
        decoder
    };
    let mut decoder = asked();
    let mut generation = Generation::start(&mut decoder, &MODEL.text, &prompt(), limits()).expect("a start");
    while generation.finish_reason().is_none() {
        generation.round().expect("a round");
    }
    let logprobs = generation.logprobs();
    assert_eq!(logprobs.iter().map(|one| one.token).collect::<Vec<_>>(), expected().1);
    assert!(logprobs.iter().all(|one| one.top == [(one.token, one.logprob)]), "the likeliest is taken");
    let mut stream = AnswerStream::start(asked(), &MODEL.text, prompt(), limits()).expect("a thread");
    let pieces = pieces(&mut stream).into_iter().collect::<Result<Vec<_>>>().expect("pieces");
    assert!(pieces.iter().all(|piece| piece.logprobs.len() == piece.tokens.len()));
    assert_eq!(pieces.iter().flat_map(|piece| piece.logprobs.clone()).collect::<Vec<_>>(), logprobs);
}

#[test]
fn a_stream_gives_the_iterators_answer_round_by_round() {
    let (text, tokens) = expected();
    // Several at once over one model, each decoder for several answers.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut decoder = decoder(&MODEL);
                for _ in 0..2 {
                    let mut stream = AnswerStream::start(decoder, &MODEL.text, prompt(), limits()).expect("a thread");
                    let pieces = pieces(&mut stream).into_iter().collect::<Result<Vec<_>>>().expect("pieces");
                    assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), text);
                    assert_eq!(pieces.iter().flat_map(|piece| piece.tokens.clone()).collect::<Vec<_>>(), tokens);
                    assert!(matches!(stream.finish_reason(), Some(FinishReason::Length | FinishReason::Stop)));
                    decoder = stream.into_sequence().expect("no panic");
                    let statistics = decoder.statistics();
                    assert_eq!(statistics.rounds, pieces.len());
                    let sum = |count: fn(&Piece) -> usize| pieces.iter().map(count).sum::<usize>();
                    assert_eq!(statistics.proposed.iter().sum::<usize>(), sum(|piece| piece.round.proposed));
                    assert_eq!(statistics.accepted.iter().sum::<usize>(), sum(|piece| piece.round.accepted));
                    assert!(sum(|piece| piece.round.accepted) > 0, "a model agrees with itself");
                }
            });
        }
    });
}

/// An application with several conversations: one pass for a token of each.
#[test]
fn a_pools_answers_are_those_of_decoders_of_their_own() {
    let questions = ["the other thing", "when", "in the water we are"];
    let prompts = questions.map(|question| {
        MODEL.text.chat_tokens(&[Message::new("user", question)], Rendering::default()).expect("a prompt")
    });
    let options = SequenceOptions::default().drafts(DraftLength::Fixed(0)).context(96);
    let expected = prompts.clone().map(|prompt| {
        let mut decoder = Sequence::new(&MODEL.weights, None, options.clone()).expect("a decoder");
        let generation = Generation::start(&mut decoder, &MODEL.text, &prompt, limits()).expect("a start");
        generation.collect::<Result<String>>().expect("a text")
    });
    let pool =
        Engine::from_weights(&MODEL.weights, None, EngineOptions::default().context(96).sequences(3)).expect("a pool");
    let mut answers: Vec<(Sequence, Completion, String)> = prompts
        .iter()
        .map(|prompt| {
            let mut decoder = pool.add(options.clone()).expect("a decoder");
            decoder.start(prompt).expect("a start");
            (decoder, Completion::new(&MODEL.text, limits(), prompt.len(), 96), String::new())
        })
        .collect();
    loop {
        let mut live: Vec<_> =
            answers.iter_mut().filter(|(_, transcript, _)| transcript.finish_reason().is_none()).collect();
        let mut decoders: Vec<&mut Sequence> = live.iter_mut().map(|(decoder, _, _)| decoder).collect();
        if pool.step(&mut decoders).expect("a round").is_empty() {
            break;
        }
        for (decoder, transcript, text) in live {
            *text += &transcript.take_round(decoder).text;
        }
    }
    assert_eq!(answers.into_iter().map(|(_, _, text)| text).collect::<Vec<_>>(), expected);
}

#[test]
fn a_stream_can_be_cancelled_and_says_what_went_wrong() {
    let long = Limits::default().max_tokens(80);
    let stream = AnswerStream::start(decoder(&MODEL), &MODEL.text, prompt(), long).expect("a thread");
    stream.cancel();
    let mut stream = stream;
    let written = pieces(&mut stream).len();
    assert!(written < 80 && stream.finish_reason() == Some(FinishReason::Cancelled), "{written} rounds");

    let mut stream = AnswerStream::start(decoder(&MODEL), &MODEL.text, vec![1; 200], limits()).expect("a thread");
    let mut pieces = pieces(&mut stream);
    assert!(matches!(pieces.pop(), Some(Err(Error::ContextFull { tokens: 200, .. }))) && pieces.is_empty());
    assert_eq!(stream.finish_reason(), Some(FinishReason::Failed));
    // Dropped at work, it ends by itself.
    drop(AnswerStream::start(decoder(&MODEL), &MODEL.text, prompt(), limits()).expect("a thread"));
}

/// The adapter under test, opened by the application.
fn own_device() -> (wgpu::Device, wgpu::Queue) {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let descriptor = wgpu::InstanceDescriptor { backends, ..wgpu::InstanceDescriptor::new_without_display_handle() };
    let instance = wgpu::Instance::new(descriptor);
    for adapter in pollster::block_on(instance.enumerate_adapters(backends)) {
        let descriptor = wgpu::DeviceDescriptor { required_limits: adapter.limits(), ..Default::default() };
        let Ok((raw, queue)) = pollster::block_on(adapter.request_device(&descriptor)) else { continue };
        if device().name().starts_with(&raw.adapter_info().name) {
            return (raw, queue);
        }
    }
    panic!("{} cannot be opened twice", device().name());
}

/// An application that draws a frame between rounds, here by filling a buffer.
#[test]
fn an_application_shares_its_device_and_drives_rounds_one_at_a_time() {
    let (raw, queue) = own_device();
    let faults = Arc::new(AtomicUsize::new(0));
    let noted = faults.clone();
    let hook = Box::new(move |_: &wgpu::Error| {
        noted.fetch_add(1, Ordering::Relaxed);
    });
    let shared = Device::from_wgpu(raw.clone(), queue.clone(), Some(hook)).expect("limits of the adapter");
    let files = ModelFiles::open(&FOLDER).expect("the model opens");
    let model = Model::upload(&shared, files, LoadOptions::default(), &|_, _| ()).expect("upload");
    let mut decoder = decoder(&model);

    let usage = wgpu::BufferUsages::COPY_DST;
    let frame =
        raw.create_buffer(&wgpu::BufferDescriptor { label: None, size: 1 << 20, usage, mapped_at_creation: false });
    decoder.start(&prompt()).expect("a start");
    let mut transcript = Completion::new(&model.text, limits(), prompt().len(), 96);
    let (mut text, mut frames) = (String::new(), 0);
    while transcript.finish_reason().is_none() {
        let mut encoder = raw.create_command_encoder(&Default::default());
        encoder.clear_buffer(&frame, 0, None);
        queue.submit([encoder.finish()]);
        decoder.round().expect("a round");
        text += &transcript.take_round(&mut decoder).text;
        frames += 1;
    }
    assert_eq!((text, transcript.output()), (expected().0, &expected().1[..]));
    assert_eq!((decoder.statistics().rounds, faults.load(Ordering::Relaxed)), (frames, 0));

    // A fault of the application's own is told to it, and the engine goes on after it has said so.
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
    let _ = raw.create_buffer(&wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false });
    assert_eq!(faults.load(Ordering::Relaxed), 1);
    assert!(matches!(shared.check("a frame"), Err(Error::Gpu { .. })));
    decoder.start(&prompt()).expect("a start");
    decoder.round().expect("a round");
}

#[test]
fn a_device_with_too_little_is_refused() {
    let with = |required_limits| {
        let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
        let (raw, queue) = wgpu::Device::noop(&descriptor);
        Device::from_wgpu(raw, queue, None).map(drop)
    };
    with(wgpu::Limits::default()).expect("what every adapter has");
    for (limits, what) in [
        (wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..Default::default() }, "storage buffers"),
        (wgpu::Limits { max_compute_workgroup_storage_size: 8192, ..Default::default() }, "workgroup memory"),
        (wgpu::Limits { max_compute_invocations_per_workgroup: 128, ..Default::default() }, "invocations"),
    ] {
        let message = with(limits).expect_err("a limit is too low").to_string();
        assert!(message.contains(what) && message.contains("wgpu::Limits"), "{message}");
    }
}

#[test]
fn an_engine_answers_prompts_of_every_kind() {
    let draft = Draft::new(&MODEL, &MODEL, Some(3)).expect("a draft");
    let engine = Engine::new(&MODEL, Some(&draft), EngineOptions::default().context(96)).expect("an engine");
    assert_eq!(engine.defaults().method, Method::Pard);
    let (text, tokens) = expected();
    let message = Message::user("the other thing");
    for prompt in [Prompt::from(message.clone()), vec![message.clone()].into(), [message].into(), prompt().into()] {
        // The sequence of the answer before has given its place back.
        let mut generation = engine.generate_with(prompt, engine.defaults(), limits()).expect("a prompt");
        assert_eq!(generation.by_ref().collect::<Result<String>>().expect("a text"), text);
        assert_eq!(generation.output(), tokens);
        assert_eq!(generation.sequence().options().method, Method::Pard);
    }
    let continued = engine.generate("the other").expect("a prompt").collect::<Result<String>>().expect("a text");
    assert!(!continued.is_empty() && continued != text);
    let whole = engine.generate("the other").expect("a prompt");
    let refused = engine.generate("the other").map(drop);
    assert!(matches!(refused, Err(Error::Option { option: OptionName::Sequences, .. })), "{refused:?}");
    drop(whole);
    let tokens_only =
        Engine::from_weights(&MODEL.weights, None, EngineOptions::default().context(96)).expect("an engine");
    let refused = tokens_only.generate("the other").map(drop);
    assert!(matches!(refused, Err(Error::Option { option: OptionName::Text, .. })), "{refused:?}");
}
