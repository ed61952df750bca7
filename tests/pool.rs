//! Decoders that share caches and passes: each writes what it would write alone, whoever decodes beside it, whatever
//! proposes, and whichever rounds were run together.

use std::sync::Arc;

use pard_engine::Error;
use pard_engine::decoding::{
    AcceptanceRule, Costs, Decoder, DecoderOptions, Draft, DraftLength, Method, Pool, SamplingParams, TokenLogprobs,
};
use pard_engine::gpu::{CacheFormat, KernelPlan};
use pard_engine::model::{PassCost, WeightDtype, Weights};

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
    Draft { name: "draft".to_owned(), model: model.clone(), mask: Some(MASK) }
}

fn options(method: Method, drafts: DraftLength, sampling: SamplingParams) -> DecoderOptions {
    DecoderOptions { method, drafts, context: CONTEXT, sampling, ..DecoderOptions::default() }
}

/// One text to be written.
#[derive(Clone)]
struct Task {
    prompt: Vec<u32>,
    tokens: usize,
    /// Rounds of the others before it begins.
    begins: usize,
    options: DecoderOptions,
}

/// Tasks unlike each other in all there is.
fn tasks(vocab: usize) -> Vec<Task> {
    let mut random = Random::new(8);
    let drawn = |seed| SamplingParams { temperature: 0.8, seed, ..SamplingParams::default() };
    let greedy = SamplingParams::default;
    let kinds = [
        (5, 30, 0, options(Method::Ar, DraftLength::Fixed(0), greedy())),
        (250, 24, 0, options(Method::Pard, DraftLength::Fixed(4), drawn(1))),
        (1, 12, 2, options(Method::Vsd, DraftLength::Fixed(2), greedy())),
        (37, 40, 3, options(Method::Pard, DraftLength::Auto, everything())),
        (64, 9, 3, options(Method::Ngram, DraftLength::Fixed(6), SamplingParams { temperature: 0.0, ..everything() })),
        (19, 26, 7, options(Method::Vsd, DraftLength::Auto, SamplingParams { top_logprobs: Some(2), ..drawn(2) })),
        (70, 20, 9, options(Method::Ngram, DraftLength::Auto, greedy())),
        (2, 33, 20, options(Method::Ar, DraftLength::Fixed(0), SamplingParams { top_logprobs: Some(0), ..drawn(3) })),
    ];
    kinds
        .map(|(len, tokens, begins, options)| Task { prompt: random.indices(len, vocab), tokens, begins, options })
        .into()
}

/// Its tokens, and their log-probabilities if they are asked for.
type Text = (Vec<u32>, Vec<TokenLogprobs>);

fn set_costs(decoder: &mut Decoder, target: Option<&PassCost>) {
    let known = target.cloned().or_else(|| (decoder.options().drafts == DraftLength::Auto).then(sloped));
    if let Some(target) = known {
        decoder.set_costs(Costs { target, draft: cheap() });
    }
}

fn alone(target: &Arc<Weights>, model: &Arc<Weights>, task: &Task) -> Text {
    let options = DecoderOptions { method: Method::Ar, drafts: DraftLength::Fixed(0), ..task.options.clone() };
    let mut decoder = Decoder::new(target, Some(&draft(model)), options).expect("a decoder");
    decoder.start(&task.prompt, &|| true).expect("a start");
    let mut logprobs = Vec::new();
    for _ in 0..task.tokens {
        decoder.round().expect("a round");
        logprobs.extend_from_slice(decoder.last_logprobs());
    }
    (decoder.tokens()[task.prompt.len()..].to_vec(), logprobs)
}

/// All tasks in one pool, each from its time on, and the rows of all passes.
fn pooled(
    [target, model]: [&Arc<Weights>; 2],
    tasks: &[Task],
    costs: Option<&PassCost>,
    run_ahead: bool,
) -> (Vec<Text>, Vec<usize>) {
    let pool = Pool::new(target, Some(&draft(model)), CONTEXT, tasks.len()).expect("a pool");
    let mut texts: Vec<Text> = vec![Text::default(); tasks.len()];
    let mut decoders: Vec<Option<Decoder>> = tasks.iter().map(|_| None).collect();
    let mut passes = Vec::new();
    for round in 0.. {
        for (index, task) in tasks.iter().enumerate().filter(|(_, task)| task.begins == round) {
            // Caches grow here, with what the others have in them.
            let options = DecoderOptions { run_ahead: Some(run_ahead), ..task.options.clone() };
            let mut decoder = pool.decoder(options).expect("a decoder");
            set_costs(&mut decoder, costs);
            decoder.start(&task.prompt, &|| true).expect("a start");
            assert!(decoder.last_tokens().is_empty());
            decoders[index] = Some(decoder);
        }
        let mut live: Vec<&mut Decoder> = decoders.iter_mut().flatten().collect();
        passes.extend(pool.round(&mut live).expect("rounds"));
        for (index, place) in decoders.iter_mut().enumerate() {
            let Some(decoder) = place else { continue };
            let (tokens, logprobs) = &mut texts[index];
            tokens.extend_from_slice(decoder.last_tokens());
            logprobs.extend_from_slice(decoder.last_logprobs());
            assert_eq!(decoder.last_tokens().len(), decoder.last_round().accepted + 1);
            if tokens.len() >= tasks[index].tokens {
                // It leaves, and its slot may be another's.
                tokens.truncate(tasks[index].tokens);
                logprobs.truncate(tasks[index].tokens);
                *place = None;
            }
        }
        if decoders.iter().all(Option::is_none) && tasks.iter().all(|task| task.begins <= round) {
            break;
        }
    }
    (texts, passes)
}

#[test]
fn a_pools_decoders_write_what_each_writes_alone() {
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
    // The draft is always right: four tokens at the price of one are worth more than two, and less than six.
    assert_eq!(rounds(Method::Vsd, DraftLength::Fixed(3), Some(&flat()), 2), [4; 6]);
    assert_eq!(rounds(Method::Vsd, DraftLength::Fixed(3), Some(&flat()), 6), [6; 12]);
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
        let drawn = SamplingParams { temperature: 0.7, seed: 6, ..SamplingParams::default() };
        let repeated = [7, 8, 9, 10, 11].repeat(4);
        let kinds = [
            (
                Method::Ngram,
                DraftLength::Fixed(3),
                repeated,
                SamplingParams { repetition_penalty: 0.5, ..Default::default() },
            ),
            (Method::Pard, DraftLength::Fixed(3), Random::new(1).indices(9, vocab), SamplingParams::default()),
            (Method::Ar, DraftLength::Fixed(0), Random::new(2).indices(40, vocab), everything()),
            (Method::Pard, DraftLength::Auto, Random::new(3).indices(30, vocab), everything()),
            (Method::Pard, DraftLength::Fixed(2), Random::new(4).indices(2, vocab), drawn),
        ];
        let kinds = kinds.into_iter().map(|(method, drafts, prompt, sampling)| {
            let options = options(method, drafts, SamplingParams { top_logprobs: Some(1), ..sampling });
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
fn some_go_together_and_some_alone() {
    let recipe = Recipe::qwen3(18);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let pool = Pool::new(&target, Some(&draft(&target)), CONTEXT, 3).expect("a pool");
    let prompt = Random::new(1).indices(9, recipe.config.vocab_size);
    let mut decoders: Vec<Decoder> = [(Method::Vsd, 15), (Method::Ar, 0), (Method::Ar, 0)]
        .into_iter()
        .map(|(method, drafts)| {
            let options = DecoderOptions {
                run_ahead: Some(false),
                ..options(method, DraftLength::Fixed(drafts), SamplingParams::default())
            };
            let mut decoder = pool.decoder(options).expect("a decoder");
            set_costs(&mut decoder, Some(&flat()));
            decoder.start(&prompt, &|| true).expect("a start");
            decoder
        })
        .collect();
    // At first four of fifteen proposals are expected to pass: seven tokens in two passes are more than three in one.
    let passes = pool.round(&mut decoders.iter_mut().collect::<Vec<_>>()).expect("rounds");
    assert_eq!(passes, [16, 2]);
    assert_eq!(decoders[0].last_tokens().len(), 16, "it agrees with itself");
    assert_eq!(decoders[0].last_tokens()[0], decoders[1].last_tokens()[0]);
}

#[test]
fn what_depends_on_its_proposals_has_rounds_of_its_own() {
    let recipe = Recipe::qwen2(19);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let prompt = Random::new(1).indices(9, recipe.config.vocab_size);
    let drawn = SamplingParams { temperature: 0.9, seed: 4, ..SamplingParams::default() };
    let rejection = DecoderOptions {
        acceptance: AcceptanceRule::Rejection,
        run_ahead: Some(false),
        ..options(Method::Vsd, DraftLength::Fixed(3), drawn)
    };
    let mut alone = Decoder::new(&target, Some(&draft(&target)), rejection.clone()).expect("a decoder");
    alone.start(&prompt, &|| true).expect("a start");
    let pool = Pool::new(&target, Some(&draft(&target)), CONTEXT, 3).expect("a pool");
    let mut decoders: Vec<Decoder> = (0..3)
        .map(|index| {
            let greedy = options(Method::Ar, DraftLength::Fixed(0), SamplingParams::default());
            let options = if index == 1 { rejection.clone() } else { greedy };
            let mut decoder = pool.decoder(options).expect("a decoder");
            decoder.start(&prompt, &|| true).expect("a start");
            decoder
        })
        .collect();
    for _ in 0..8 {
        let passes = pool.round(&mut decoders.iter_mut().collect::<Vec<_>>()).expect("rounds");
        assert_eq!(passes, [4, 2]);
        assert_eq!(decoders[1].last_tokens(), alone.round().expect("a round"));
    }
}

#[test]
fn a_conversation_goes_on_in_its_slot_and_a_full_context_ends_nobody_elses_text() {
    let recipe = Recipe::llama(20);
    let vocab = recipe.config.vocab_size;
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let ar = || options(Method::Ar, DraftLength::Fixed(0), SamplingParams::default());
    let pool = Pool::new(&target, None, CONTEXT, 2).expect("a pool");
    let mut one = pool.decoder(DecoderOptions { context: 24, ..ar() }).expect("a decoder");
    let mut other = pool.decoder(ar()).expect("a decoder");
    let mut lone = Decoder::new(&target, None, ar()).expect("a decoder");
    one.start(&Random::new(1).indices(20, vocab), &|| true).expect("a start");
    let prompt = Random::new(2).indices(11, vocab);
    other.start(&prompt, &|| true).expect("a start");
    lone.start(&prompt, &|| true).expect("a start");
    for _ in 0..4 {
        pool.round(&mut [&mut one, &mut other]).expect("a round");
    }
    let full = pool.round(&mut [&mut other, &mut one]);
    assert!(matches!(full, Err(Error::ContextFull { tokens: 24, context: 24 })), "{full:?}");
    assert_eq!(pool.round(&mut [&mut other]).expect("a round"), [1]);
    // The next turn of both: what the caches hold is not read again.
    one.truncate(12).expect("less");
    assert!(one.last_tokens().is_empty());
    let turn = [&other.tokens()[..14], &Random::new(3).indices(5, vocab)].concat();
    for _ in 0..5 {
        lone.round().expect("a round");
    }
    assert_eq!(other.tokens(), lone.tokens());
    for decoder in [&mut other, &mut lone] {
        decoder.resume(&turn, &|| true).expect("a resumption");
        assert_eq!(decoder.statistics().reused_tokens, 14);
    }
    let first = one.tokens()[..10].to_vec();
    one.resume(&first, &|| true).expect("a resumption");
    for _ in 0..6 {
        assert_eq!(pool.round(&mut [&mut other, &mut one]).expect("a round"), [2]);
        lone.round().expect("a round");
    }
    assert_eq!(other.tokens(), lone.tokens());
}

#[test]
fn decoders_of_a_pool_may_work_on_several_threads() {
    let recipe = Recipe::qwen3(21);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let tasks = tasks(recipe.config.vocab_size);
    let expected: Vec<Text> = tasks.iter().map(|task| alone(&target, &target, task)).collect();
    let pool = Pool::new(&target, Some(&draft(&target)), CONTEXT, tasks.len()).expect("a pool");
    std::thread::scope(|scope| {
        for (task, (expected, _)) in tasks.iter().zip(&expected) {
            let pool = &pool;
            scope.spawn(move || {
                let mut decoder = pool.decoder(task.options.clone()).expect("a decoder");
                set_costs(&mut decoder, None);
                decoder.start(&task.prompt, &|| true).expect("a start");
                while decoder.tokens().len() < task.prompt.len() + task.tokens {
                    decoder.round().expect("a round");
                }
                assert_eq!(&decoder.tokens()[task.prompt.len()..][..task.tokens], expected);
            });
        }
    });
}

#[test]
fn what_a_pool_has_no_room_for_is_refused_with_a_reason() {
    let recipe = Recipe::llama(22);
    let target = upload(&recipe, &plan(CacheFormat::F16));
    let ar = || options(Method::Ar, DraftLength::Fixed(0), SamplingParams::default());
    assert!(matches!(Pool::new(&target, None, CONTEXT, 0), Err(Error::Option { option: "parallel", .. })));
    assert!(matches!(Pool::new(&target, None, 1, 2), Err(Error::Option { option: "context", .. })));
    let pool = Pool::new(&target, None, CONTEXT, 1).expect("a pool");
    let longer = pool.decoder(DecoderOptions { context: CONTEXT + 1, ..ar() });
    assert!(matches!(longer, Err(Error::Option { option: "context", .. })));
    let pard = pool.decoder(options(Method::Pard, DraftLength::Auto, SamplingParams::default()));
    assert!(matches!(pard, Err(Error::Option { option: "draft", .. })));
    let mut first = pool.decoder(ar()).expect("a decoder");
    assert!(matches!(pool.decoder(ar()), Err(Error::Option { option: "parallel", .. })));
    assert!(matches!(pool.round(&mut [&mut first]), Err(Error::EmptyPrompt)));
    let mut stranger = Decoder::new(&target, None, ar()).expect("a decoder");
    stranger.start(&[1, 2], &|| true).expect("a start");
    assert!(matches!(pool.round(&mut [&mut stranger]), Err(Error::Option { option: "decoders", .. })));
    assert!(pool.round(&mut []).expect("nothing to do").is_empty());
    drop(first);
    pool.decoder(ar()).map(drop).expect("its slot is free again");
}

/// Caches double where they can, grow by what is needed where not, and what does not fit takes nothing from the others.
#[test]
fn decoders_are_made_as_long_as_their_caches_fit() {
    let limited = device_with_binding_limit(1_000_000);
    let recipe = Recipe::qwen2(23);
    let plan = KernelPlan { cache: CacheFormat::F32, ..limited.default_plan() };
    let memory = Memory::new(recipe.tensors());
    let target = Weights::upload(&limited, &plan, &recipe.config, &memory, WeightDtype::Compact, &|_, _| ());
    let target = Arc::new(target.expect("upload"));
    // Three slots of keys are 934 KB, four are more than one binding.
    let ar =
        || DecoderOptions { context: 1140, ..options(Method::Ar, DraftLength::Fixed(0), SamplingParams::default()) };
    let prompts: Vec<Vec<u32>> = (1..=3).map(|seed| Random::new(seed).indices(40, recipe.config.vocab_size)).collect();
    let expected: Vec<Vec<u32>> = prompts
        .iter()
        .map(|prompt| {
            let mut decoder = Decoder::new(&target, None, ar()).expect("room for one");
            decoder.start(prompt, &|| true).expect("a start");
            for _ in 0..20 {
                decoder.round().expect("a round");
            }
            decoder.tokens().to_vec()
        })
        .collect();
    let pool = Pool::new(&target, None, 1140, 8).expect("room for one");
    let mut decoders = Vec::new();
    for prompt in &prompts {
        let mut decoder = pool.decoder(ar()).expect("room for three");
        decoder.start(prompt, &|| true).expect("a start");
        decoders.push(decoder);
    }
    assert!(matches!(pool.decoder(ar()).map(drop), Err(Error::Limit { .. })));
    for _ in 0..20 {
        let passes = pool.round(&mut decoders.iter_mut().collect::<Vec<_>>()).expect("a round");
        assert_eq!(passes, [3]);
    }
    for (decoder, expected) in decoders.iter().zip(&expected) {
        assert_eq!(decoder.tokens(), expected);
    }
}
