//! Decoders that share caches and passes: each writes what it would write alone, whoever decodes beside it, whatever
//! proposes, and whichever rounds were run together.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Waker};

use pard::Error;
use pard::decoding::{
    AcceptanceRule, Costs, Draft, DraftLength, Engine, EngineOptions, Method, SamplingParams, Sequence,
    SequenceOptions, TokenLogprobs,
};
use pard::error::OptionName;
use pard::low_level::gpu::{CacheFormat, KernelPlan};
use pard::model::{PassCost, WeightDtype, Weights};

use crate::sampling_options::everything;
use crate::support::gpu::{device_with_binding_limit, plan, upload};
use crate::support::memory::Memory;
use crate::support::random::Random;
use crate::support::tiny_model::Recipe;

const CONTEXT: usize = 320;
const MASK: u32 = 5;

/// Rows are free, cost something, or as much as a pass.
fn flat() -> PassCost {
    PassCost::from_points(&[(1, 1.0), (32, 1.01)])
}

fn sloped() -> PassCost {
    PassCost::from_points(&[(1, 1.0), (32, 6.0)])
}

fn steep() -> PassCost {
    PassCost::from_points(&[(1, 1.0), (32, 32.0)])
}

fn cheap() -> PassCost {
    PassCost::from_points(&[(1, 0.01), (32, 0.02)])
}

fn draft(model: &Arc<Weights>) -> Draft {
    Draft::from_weights("draft", model.clone(), Some(MASK))
}

fn options(method: Method, drafts: DraftLength, sampling: SamplingParams) -> SequenceOptions {
    SequenceOptions::default().method(method).drafts(drafts).context(CONTEXT).sampling(sampling)
}

/// One text to be written.
#[derive(Clone)]
struct Task {
    prompt: Vec<u32>,
    tokens: usize,
    /// Rounds of the others before it begins.
    begins: usize,
    options: SequenceOptions,
}

/// Tasks unlike each other in all there is.
fn tasks(vocab: usize) -> Vec<Task> {
    let mut random = Random::new(8);
    let drawn = |seed| SamplingParams::default().temperature(0.8).seed(seed);
    let greedy = SamplingParams::default;
    let kinds = [
        (5, 30, 0, options(Method::Ar, DraftLength::Fixed(0), greedy())),
        (250, 24, 0, options(Method::Pard, DraftLength::Fixed(4), drawn(1))),
        (1, 12, 2, options(Method::Vsd, DraftLength::Fixed(2), greedy())),
        (37, 40, 3, options(Method::Pard, DraftLength::Auto, everything())),
        (64, 9, 3, options(Method::Ngram, DraftLength::Fixed(6), everything().temperature(0.0))),
        (19, 26, 7, options(Method::Vsd, DraftLength::Auto, drawn(2).top_logprobs(Some(2)))),
        (70, 20, 9, options(Method::Ngram, DraftLength::Auto, greedy())),
        (2, 33, 20, options(Method::Ar, DraftLength::Fixed(0), drawn(3).top_logprobs(Some(0)))),
    ];
    kinds
        .map(|(len, tokens, begins, options)| Task { prompt: random.indices(len, vocab), tokens, begins, options })
        .into()
}

/// Its tokens, and their log-probabilities if they are asked for.
type Text = (Vec<u32>, Vec<TokenLogprobs>);

fn set_costs(sequence: &mut Sequence, target: Option<&PassCost>) {
    let known = target.cloned().or_else(|| (sequence.options().drafts == DraftLength::Auto).then(sloped));
    if let Some(target) = known {
        sequence.set_costs(Costs { target, draft: cheap() });
    }
}

fn alone(target: &Arc<Weights>, model: &Arc<Weights>, task: &Task) -> Text {
    let options = task.options.clone().method(Method::Ar).drafts(DraftLength::Fixed(0));
    let mut sequence = Sequence::new(target, Some(&draft(model)), options).expect("a sequence");
    sequence.start(&task.prompt).expect("a start");
    let mut logprobs = Vec::new();
    for _ in 0..task.tokens {
        sequence.round().expect("a round");
        logprobs.extend_from_slice(sequence.last_logprobs());
    }
    (sequence.tokens()[task.prompt.len()..].to_vec(), logprobs)
}

/// All tasks in one engine, each from its time on, and the rows of all passes.
fn pooled(
    [target, model]: [&Arc<Weights>; 2],
    tasks: &[Task],
    costs: Option<&PassCost>,
    run_ahead: bool,
) -> (Vec<Text>, Vec<usize>) {
    let engine = Engine::from_weights(
        target,
        Some(&draft(model)),
        EngineOptions::default().context(CONTEXT).sequences(tasks.len()),
    )
    .expect("an engine");
    let mut texts: Vec<Text> = vec![Text::default(); tasks.len()];
    let mut sequences: Vec<Option<Sequence>> = tasks.iter().map(|_| None).collect();
    let mut passes = Vec::new();
    for round in 0.. {
        for (index, task) in tasks.iter().enumerate().filter(|(_, task)| task.begins == round) {
            // Caches grow here, with what the others have in them.
            let options = task.options.clone().run_ahead(Some(run_ahead));
            let mut sequence = engine.add(options).expect("a sequence");
            set_costs(&mut sequence, costs);
            sequence.start(&task.prompt).expect("a start");
            assert!(sequence.last_tokens().is_empty());
            sequences[index] = Some(sequence);
        }
        let mut live: Vec<&mut Sequence> = sequences.iter_mut().flatten().collect();
        passes.extend(engine.step(&mut live).expect("rounds"));
        for (index, place) in sequences.iter_mut().enumerate() {
            let Some(sequence) = place else { continue };
            let (tokens, logprobs) = &mut texts[index];
            tokens.extend_from_slice(sequence.last_tokens());
            logprobs.extend_from_slice(sequence.last_logprobs());
            assert_eq!(sequence.last_tokens().len(), sequence.last_round().accepted + 1);
            if tokens.len() >= tasks[index].tokens {
                // It leaves, and its slot may be another's.
                tokens.truncate(tasks[index].tokens);
                logprobs.truncate(tasks[index].tokens);
                *place = None;
            }
        }
        if sequences.iter().all(Option::is_none) && tasks.iter().all(|task| task.begins <= round) {
            break;
        }
    }
    (texts, passes)
}

#[test]
fn an_engines_sequences_write_what_each_writes_alone() {
    for (index, recipe) in Recipe::each_family(14).into_iter().enumerate() {
        for cache in [CacheFormat::F16, CacheFormat::F32] {
            let target = upload(&recipe, &plan(cache));
            let stranger = upload(&Recipe { seed: 15, ..recipe.clone() }, &plan(cache));
            let tasks = tasks(recipe.config.vocab_size);
            let expected: Vec<Text> = tasks.iter().map(|task| alone(&target, &stranger, task)).collect();
            let all = [None, Some(flat()), Some(sloped()), Some(steep())];
            // Each family and format with some of the ways there are.
            let some =
                all.iter().enumerate().filter(|(at, _)| (index + at) % 2 == usize::from(cache == CacheFormat::F32));
            for (at, costs) in some {
                let run_ahead = (index + at / 2).is_multiple_of(2);
                let model = if at < 2 { &target } else { &stranger };
                let (texts, _) = pooled([&target, model], &tasks, costs.as_ref(), run_ahead);
                for (task, (text, expected)) in texts.iter().zip(&expected).enumerate() {
                    let context = format!("{:?}, {cache:?}, task {task}, {costs:?}, {run_ahead}", recipe.config.family);
                    assert_eq!(text, expected, "{context}");
                }
            }
        }
    }
}

#[test]
fn rows_share_passes_where_that_pays() {
    let recipe = Recipe::llama(16);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let prompts: Vec<Vec<u32>> = (1..=6).map(|seed| Random::new(seed).indices(7, recipe.config.vocab_size)).collect();
    let rounds = |method: Method, drafts, costs: Option<&PassCost>, count: usize| {
        let greedy = SamplingParams::default;
        let task = |prompt: &Vec<u32>| Task {
            prompt: prompt.clone(),
            tokens: 12,
            begins: 0,
            options: options(method, drafts, greedy()),
        };
        let tasks: Vec<Task> = prompts.iter().take(count).map(task).collect();
        pooled([&target, &target], &tasks, costs, false).1
    };
    // Six tokens a pass; also where nobody knows what passes cost.
    assert_eq!(rounds(Method::Ar, DraftLength::Fixed(0), None, 6), [6; 12]);
    assert_eq!(rounds(Method::Vsd, DraftLength::Fixed(3), None, 6), [6; 12]);
    // The draft is always right: four tokens of each at the price of one.
    assert_eq!(rounds(Method::Vsd, DraftLength::Fixed(3), Some(&flat()), 2), [8; 3]);
    assert_eq!(rounds(Method::Vsd, DraftLength::Fixed(3), Some(&flat()), 6), [24; 3]);
    // An additional row costs the same in any pass.
    let alone = rounds(Method::Vsd, DraftLength::Fixed(3), Some(&flat()), 1);
    assert_eq!(alone, [4; 3]);
}

/// A parallel draft proposes for all in one pass, n-grams cost none, and the target checks all of it in one.
#[test]
fn proposals_share_passes_too() {
    for recipe in Recipe::each_family(24) {
        let vocab = recipe.config.vocab_size;
        let target = upload(&recipe, &plan(CacheFormat::F16));
        let stranger = upload(&Recipe { seed: 25, ..recipe.clone() }, &plan(CacheFormat::F16));
        let drawn = SamplingParams::default().temperature(0.7).seed(6);
        let repeated = [7, 8, 9, 10, 11].repeat(4);
        let kinds = [
            (Method::Ngram, DraftLength::Fixed(3), repeated, SamplingParams::default().repetition_penalty(0.5)),
            (Method::Pard, DraftLength::Fixed(3), Random::new(1).indices(9, vocab), SamplingParams::default()),
            (Method::Ar, DraftLength::Fixed(0), Random::new(2).indices(40, vocab), everything()),
            (Method::Pard, DraftLength::Auto, Random::new(3).indices(30, vocab), everything()),
            (Method::Pard, DraftLength::Fixed(2), Random::new(4).indices(2, vocab), drawn),
        ];
        let kinds = kinds.into_iter().map(|(method, drafts, prompt, sampling)| {
            let options = options(method, drafts, sampling.top_logprobs(Some(1)));
            Task { prompt, tokens: 40, begins: 0, options }
        });
        let tasks: Vec<Task> = kinds.collect();
        for model in [&target, &stranger] {
            let expected: Vec<Text> = tasks.iter().map(|task| alone(&target, model, task)).collect();
            let (texts, passes) = pooled([&target, model], &tasks, Some(&flat()), false);
            for (task, (text, expected)) in texts.iter().zip(&expected).enumerate() {
                assert_eq!(text, expected, "{:?}, task {task}", recipe.config.family);
            }
            // Rows of all, and so many proposals with them: nobody goes alone.
            assert!(passes.iter().any(|&rows| rows > tasks.len()), "{passes:?}");
            assert!(passes.len() <= 40, "{passes:?}");
        }
    }
}

#[test]
fn a_serial_draft_proposes_in_a_pass_with_others() {
    let recipe = Recipe::qwen3(18);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let engine =
        Engine::from_weights(&target, Some(&draft(&target)), EngineOptions::default().context(CONTEXT).sequences(3))
            .expect("an engine");
    let prompt = Random::new(1).indices(9, recipe.config.vocab_size);
    let mut sequences: Vec<Sequence> = [(Method::Vsd, 15), (Method::Ar, 0), (Method::Ar, 0)]
        .into_iter()
        .map(|(method, drafts)| {
            let options = options(method, DraftLength::Fixed(drafts), SamplingParams::default()).run_ahead(Some(false));
            let mut sequence = engine.add(options).expect("a sequence");
            set_costs(&mut sequence, Some(&flat()));
            sequence.start(&prompt).expect("a start");
            sequence
        })
        .collect();
    let passes = engine.step(&mut sequences.iter_mut().collect::<Vec<_>>()).expect("rounds");
    let [rows] = passes[..] else { panic!("one pass takes all: {passes:?}") };
    // A row of each, and the proposals whose chance of being accepted is worth a pass of the draft.
    assert!((4..=18).contains(&rows), "{rows} rows");
    assert_eq!(sequences[0].last_tokens().len(), rows - 2, "it agrees with itself");
    assert_eq!(sequences[0].last_tokens()[0], sequences[1].last_tokens()[0]);
}

#[test]
fn what_depends_on_its_proposals_has_rounds_of_its_own() {
    let recipe = Recipe::qwen2(19);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let prompt = Random::new(1).indices(9, recipe.config.vocab_size);
    let drawn = SamplingParams::default().temperature(0.9).seed(4);
    let rejection =
        options(Method::Vsd, DraftLength::Fixed(3), drawn).acceptance(AcceptanceRule::Rejection).run_ahead(Some(false));
    let mut alone = Sequence::new(&target, Some(&draft(&target)), rejection.clone()).expect("a sequence");
    alone.start(&prompt).expect("a start");
    let engine =
        Engine::from_weights(&target, Some(&draft(&target)), EngineOptions::default().context(CONTEXT).sequences(3))
            .expect("an engine");
    let mut sequences: Vec<Sequence> = (0..3)
        .map(|index| {
            let greedy = options(Method::Ar, DraftLength::Fixed(0), SamplingParams::default());
            let options = if index == 1 { rejection.clone() } else { greedy };
            let mut sequence = engine.add(options).expect("a sequence");
            sequence.start(&prompt).expect("a start");
            sequence
        })
        .collect();
    for _ in 0..8 {
        let passes = engine.step(&mut sequences.iter_mut().collect::<Vec<_>>()).expect("rounds");
        assert_eq!(passes, [4, 2]);
        assert_eq!(sequences[1].last_tokens(), alone.round().expect("a round"));
    }
}

#[test]
fn a_conversation_goes_on_in_its_slot_and_a_full_context_ends_nobody_elses_text() {
    let recipe = Recipe::llama(20);
    let vocab = recipe.config.vocab_size;
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let ar = || options(Method::Ar, DraftLength::Fixed(0), SamplingParams::default());
    let engine =
        Engine::from_weights(&target, None, EngineOptions::default().context(CONTEXT).sequences(2)).expect("an engine");
    let mut one = engine.add(ar().context(24)).expect("a sequence");
    let mut other = engine.add(ar()).expect("a sequence");
    let mut lone = Sequence::new(&target, None, ar()).expect("a sequence");
    one.start(&Random::new(1).indices(20, vocab)).expect("a start");
    let prompt = Random::new(2).indices(11, vocab);
    other.start(&prompt).expect("a start");
    lone.start(&prompt).expect("a start");
    for _ in 0..4 {
        engine.step(&mut [&mut one, &mut other]).expect("a round");
    }
    let full = engine.step(&mut [&mut other, &mut one]);
    assert!(matches!(full, Err(Error::ContextFull { tokens: 24, context: 24 })), "{full:?}");
    assert_eq!(engine.step(&mut [&mut other]).expect("a round"), [1]);
    // The next turn of both: what the caches hold is not read again.
    one.truncate(12);
    assert!(one.last_tokens().is_empty());
    let turn = [&other.tokens()[..14], &Random::new(3).indices(5, vocab)].concat();
    for _ in 0..5 {
        lone.round().expect("a round");
    }
    assert_eq!(other.tokens(), lone.tokens());
    for sequence in [&mut other, &mut lone] {
        sequence.resume(&turn).expect("a resumption");
        assert_eq!(sequence.statistics().reused_tokens, 14);
    }
    let first = one.tokens()[..10].to_vec();
    one.resume(&first).expect("a resumption");
    for _ in 0..6 {
        assert_eq!(engine.step(&mut [&mut other, &mut one]).expect("a round"), [2]);
        lone.round().expect("a round");
    }
    assert_eq!(other.tokens(), lone.tokens());
}

#[test]
fn sequences_of_an_engine_may_work_on_several_threads() {
    let recipe = Recipe::qwen3(21);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let tasks = tasks(recipe.config.vocab_size);
    let expected: Vec<Text> = tasks.iter().map(|task| alone(&target, &target, task)).collect();
    let engine = Engine::from_weights(
        &target,
        Some(&draft(&target)),
        EngineOptions::default().context(CONTEXT).sequences(tasks.len()),
    )
    .expect("an engine");
    std::thread::scope(|scope| {
        for (task, (expected, _)) in tasks.iter().zip(&expected) {
            let engine = &engine;
            scope.spawn(move || {
                let mut sequence = engine.add(task.options.clone()).expect("a sequence");
                set_costs(&mut sequence, None);
                sequence.start(&task.prompt).expect("a start");
                while sequence.tokens().len() < task.prompt.len() + task.tokens {
                    sequence.round().expect("a round");
                }
                assert_eq!(&sequence.tokens()[task.prompt.len()..][..task.tokens], expected);
            });
        }
    });
}

/// A padding id, which no text means, but which a prompt may hold and a target may write.
#[test]
fn a_draft_reads_tokens_that_only_its_target_has() {
    let target = upload(&Recipe::qwen3(23), &plan(CacheFormat::F16));
    let smaller = upload(&Recipe::llama(24), &plan(CacheFormat::F16));
    let mut prompt = Random::new(10).indices(21, 300);
    prompt[3..6].copy_from_slice(&[310, 307, 308]);
    for method in [Method::Pard, Method::Vsd] {
        let options = options(method, DraftLength::Fixed(3), SamplingParams::default());
        let task = Task { prompt: prompt.clone(), tokens: 16, begins: 0, options: options.clone() };
        let (expected, _) = alone(&target, &smaller, &task);
        let mut sequence = Sequence::new(&target, Some(&draft(&smaller)), options).expect("a sequence");
        sequence.start(&prompt).expect("a start");
        while sequence.tokens().len() < prompt.len() + expected.len() {
            sequence.round().expect("a round");
        }
        assert_eq!(&sequence.tokens()[prompt.len()..][..expected.len()], expected);
    }
}

#[test]
fn costs_may_be_measured_while_the_first_tokens_are_written() {
    let recipe = Recipe::qwen3(23);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let drafting = upload(&Recipe::llama(24), &plan(CacheFormat::F16));
    let (prompt, room) = (Random::new(9).indices(37, 300), EngineOptions::default().context(CONTEXT));
    for (method, model) in [(Method::Pard, &target), (Method::Pard, &drafting), (Method::Vsd, &drafting)] {
        let auto = options(method, DraftLength::Auto, SamplingParams::default());
        let task = Task { prompt: prompt.clone(), tokens: 48, begins: 0, options: auto.clone() };
        let (expected, _) = alone(&target, model, &task);
        let engine = Engine::from_weights(&target, Some(&draft(model)), room.sequences(3)).expect("an engine");
        let mut sequences = [0, 1].map(|_| {
            let mut sequence = engine.add(auto.clone()).expect("a sequence");
            sequence.measure_costs_between_rounds();
            sequence.start(&prompt).expect("a start");
            sequence
        });
        let mut steps = 0;
        let mut step = |sequences: &mut [Sequence]| {
            engine.step(&mut sequences.iter_mut().collect::<Vec<_>>()).expect("a step");
            steps += 1;
            let is_plain = sequences.iter().all(|sequence| sequence.last_tokens().len() == 1);
            assert!(is_plain || engine.costs().is_some(), "nothing is proposed before costs are known");
            steps
        };
        while engine.costs().is_none() {
            let steps = step(&mut sequences);
            assert!(steps > 1 || engine.costs().is_none(), "the first tokens wait for no measurement");
            assert!(steps < 10, "costs are known after a few rounds");
        }
        assert!(engine.costs().is_some_and(|costs| costs.target.of(16.0) > 0.0 && costs.draft.of(1.0) > 0.0));
        while sequences.iter().any(|sequence| sequence.tokens().len() < prompt.len() + expected.len()) {
            step(&mut sequences);
        }
        for sequence in &sequences {
            assert!(sequence.speculation().is_some(), "both know the costs");
            assert_eq!(&sequence.tokens()[prompt.len()..][..expected.len()], expected);
        }
    }
}

#[test]
fn what_an_engine_has_no_room_for_is_refused_with_a_reason() {
    let recipe = Recipe::llama(22);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let ar = || options(Method::Ar, DraftLength::Fixed(0), SamplingParams::default());
    assert!(matches!(
        Engine::from_weights(&target, None, EngineOptions::default().context(CONTEXT).sequences(0)),
        Err(Error::Option { option: OptionName::Sequences, .. })
    ));
    assert!(matches!(
        Engine::from_weights(&target, None, EngineOptions::default().context(1).sequences(2)),
        Err(Error::Option { option: OptionName::Context, .. })
    ));
    let engine =
        Engine::from_weights(&target, None, EngineOptions::default().context(CONTEXT).sequences(1)).expect("an engine");
    let longer = engine.add(ar().context(CONTEXT + 1));
    assert!(matches!(longer, Err(Error::Option { option: OptionName::Context, .. })));
    let pard = engine.add(options(Method::Pard, DraftLength::Auto, SamplingParams::default()));
    assert!(matches!(pard, Err(Error::Option { option: OptionName::Draft, .. })));
    let mut first = engine.add(ar()).expect("a sequence");
    assert!(matches!(engine.add(ar()), Err(Error::Option { option: OptionName::Sequences, .. })));
    assert!(matches!(engine.step(&mut [&mut first]), Err(Error::EmptyPrompt)));
    let mut stranger = Sequence::new(&target, None, ar()).expect("a sequence");
    stranger.start(&[1, 2]).expect("a start");
    assert!(matches!(engine.step(&mut [&mut stranger]), Err(Error::Option { option: OptionName::Sequences, .. })));
    assert!(engine.step(&mut []).expect("nothing to do").is_empty());
    drop(first);
    engine.add(ar()).map(drop).expect("its slot is free again");
}

/// Caches double where they can, grow by what is needed where not, and what does not fit takes nothing from the others.
#[test]
fn sequences_are_added_as_long_as_their_caches_fit() {
    let limited = device_with_binding_limit(1_000_000);
    let recipe = Recipe::qwen2(23);
    let plan = KernelPlan { cache: CacheFormat::F32, ..limited.default_plan() };
    let memory = Memory::new(recipe.tensors());
    let target = Weights::upload(&limited, &plan, &recipe.config, &memory, WeightDtype::Compact, &|_, _| ());
    let target = Arc::new(target.expect("upload"));
    // Three slots of keys are 934 KB, four are more than one binding.
    let ar = || options(Method::Ar, DraftLength::Fixed(0), SamplingParams::default()).context(1140);
    let prompts: Vec<Vec<u32>> = (1..=3).map(|seed| Random::new(seed).indices(40, recipe.config.vocab_size)).collect();
    let expected: Vec<Vec<u32>> = prompts
        .iter()
        .map(|prompt| {
            let mut sequence = Sequence::new(&target, None, ar()).expect("room for one");
            sequence.start(prompt).expect("a start");
            for _ in 0..20 {
                sequence.round().expect("a round");
            }
            sequence.tokens().to_vec()
        })
        .collect();
    let engine =
        Engine::from_weights(&target, None, EngineOptions::default().context(1140).sequences(8)).expect("room for one");
    let mut sequences = Vec::new();
    for prompt in &prompts {
        let mut sequence = engine.add(ar()).expect("room for three");
        sequence.start(prompt).expect("a start");
        sequences.push(sequence);
    }
    assert!(matches!(engine.add(ar()).map(drop), Err(Error::Limit { .. })));
    for _ in 0..20 {
        let passes = engine.step(&mut sequences.iter_mut().collect::<Vec<_>>()).expect("a round");
        assert_eq!(passes, [3]);
    }
    for (sequence, expected) in sequences.iter().zip(&expected) {
        assert_eq!(sequence.tokens(), expected);
    }
}

/// Runs two sequences in joint steps and two more by tasks of their own, all on one engine; a future is polled only when it
/// is woken, so the device has to report by itself.
#[test]
fn asynchronous_steps_commit_the_same_tokens() {
    let target = upload(&Recipe::llama(31), &plan(CacheFormat::F16));
    let capacity = EngineOptions::default().context(CONTEXT).sequences(4);
    let engine = Engine::from_weights(&target, Some(&draft(&target)), capacity).expect("an engine");
    let prompts: [&[u32]; 4] = [&[5, 6, 7], &[8, 9], &[10, 11, 12, 13], &[5, 6, 8]];
    let wanted = |sequence: &Sequence| sequence.tokens().len() < 40;
    for (method, run_ahead) in [(Method::Ar, false), (Method::Pard, false), (Method::Pard, true)] {
        let options = options(method, DraftLength::Fixed(3), SamplingParams::default()).run_ahead(Some(run_ahead));
        let begin = |prompt: &[u32]| {
            let mut sequence = engine.add(options.clone()).expect("a sequence");
            set_costs(&mut sequence, None);
            sequence.start(prompt).expect("a prompt");
            sequence
        };
        let expected = prompts.map(|prompt| {
            let mut sequence = begin(prompt);
            while wanted(&sequence) {
                engine.step(&mut [&mut sequence]).expect("a step");
            }
            sequence.tokens()[..40].to_vec()
        });
        let [mut one, mut two, mut three, mut four] = prompts.map(begin);
        let write = |sequence: &mut Sequence| {
            while wanted(sequence) {
                pollster::block_on(engine.step_async(&mut [&mut *sequence])).expect("a step");
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| write(&mut three));
            scope.spawn(|| write(&mut four));
            while wanted(&one) || wanted(&two) {
                {
                    // A step that is given up half-way leaves its rounds to the next one.
                    let mut both = [&mut one, &mut two];
                    let mut step = std::pin::pin!(engine.step_async(&mut both));
                    let _ = step.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                }
                pollster::block_on(engine.step_async(&mut [&mut one, &mut two])).expect("a step");
            }
        });
        for (sequence, expected) in [one, two, three, four].iter().zip(&expected) {
            assert_eq!(&sequence.tokens()[..40], expected, "{method:?}, ahead: {run_ahead}");
        }
    }
}
