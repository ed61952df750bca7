//! `pard bench`: the decoding methods side by side on the same prompts, and whether they write the same tokens.
//! Methods take turns on each prompt, so that a machine that slows down slows all of them. With `--pp` or `--tg` it times
//! reading and writing alone ([`throughput`]).

mod report;
mod samples;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, value_parser};
use pard::Error;
use pard::decoding::{DraftLength, FinishReason, Limits, Method, SequenceOptions};

use crate::answer::{Answer, Begin, answer, tokens_per_second};
use crate::args::{METHODS, ModelArguments, SamplingArguments, StyleArguments, at_least_one, drafts, one_of};
use crate::interrupt;
use crate::load::{self, Files};
use crate::output::{self, Verbosity};
use crate::prompt::{self, Prompt};
use crate::usage::usage;

use report::{Report, Run};

/// Two prompts each of code, maths and chat.
const BUILT_IN: [&str; 6] = [
    "Write a Python function `is_palindrome(text)` that ignores case and everything that is not a letter.",
    "Write a Rust function that returns the second largest number of a slice, or `None` if there is none.",
    "A baker sells 24 loaves in the morning and half as many in the afternoon, at 3 dollars each. How much does she \
     earn in five days? Explain step by step.",
    "What is the sum of all whole numbers from 1 to 60 that are divisible by 4? Show how you get there.",
    "My sister has just moved to a new town and feels lonely. Suggest five ways in which she could meet people.",
    "Explain to a child of eight why the sky is blue and the evening sun is red.",
];

/// Length of the answer that is not counted.
const WARM_UP_TOKENS: usize = 8;

#[derive(Args)]
pub struct BenchArguments {
    /// Prompts, a JSON object a line with `prompt`, `messages`, `turns` (the first is taken) or `data` [default: a
    /// built-in set]
    #[arg(long, value_name = "FILE.jsonl")]
    pub prompts: Option<PathBuf>,
    /// Take the first N prompts only
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    #[command(flatten)]
    pub style: StyleArguments,
    #[command(flatten)]
    pub models: ModelArguments,
    /// Tokens proposed per round: 0 to 16 or `auto`; several, separated by commas, are compared [default: auto]
    #[arg(short = 'k', long, value_name = "K|auto", value_delimiter = ',', value_parser = drafts)]
    pub draft_len: Vec<DraftLength>,
    /// Submit a round before the last one's tokens are known [default: on GPUs]
    #[arg(long, value_name = "on|off", value_parser = one_of(&[("on", true), ("off", false)]))]
    pub run_ahead: Option<bool>,
    /// The methods, separated by commas [default: all that the draft allows]
    #[arg(long, value_delimiter = ',', value_parser = one_of(&METHODS))]
    pub methods: Vec<Method>,
    /// Compare the drafts with n-grams in their place, in rounds in which they promise more, as well
    #[arg(long)]
    pub with_ngrams: bool,
    /// Tokens of each answer at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    pub max_tokens: usize,
    /// Seconds that the comparison may take: answers are made shorter, to 8 tokens at least
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(1..))]
    pub within: Option<u32>,
    #[command(flatten)]
    pub sampling: SamplingArguments,
    #[command(flatten)]
    pub tests: TestArguments,
    /// Timed runs of each test of raw speed, after one run that does not count
    #[arg(short, long, value_name = "R", default_value_t = 5, requires = "tests", value_parser = value_parser!(u32).range(1..))]
    pub repetitions: u32,
    /// The report's form [default: md for tests of raw speed, else plain text; of which the other form is json]
    #[arg(short, long, value_name = "FORMAT", value_parser = one_of(&FORMATS))]
    pub output: Option<Format>,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
    /// Print no notices and progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// Tests of raw speed in place of the comparison, called what llama.cpp's `llama-bench` calls them.
#[derive(Args)]
#[group(id = "tests", multiple = true, conflicts_with_all = [
    "prompts", "limit", "methods", "max_tokens", "within", "draft", "draft_len", "StyleArguments", "SamplingArguments",
])]
pub struct TestArguments {
    /// Time reading a prompt of N random tokens instead, as `llama-bench -p` does; several Ns separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = value_parser!(u32).range(1..LONGEST_TEST))]
    pub pp: Vec<u32>,
    /// Time writing N tokens instead, one after the other, as `llama-bench -n` does; several Ns separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = value_parser!(u32).range(1..LONGEST_TEST))]
    pub tg: Vec<u32>,
}

/// Output format of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table in Markdown.
    Markdown,
    /// Comma-separated values.
    Csv,
    /// One JSON value.
    Json,
}

/// A test takes one token of context more than its own.
const LONGEST_TEST: i64 = pard::decoding::MAX_CONTEXT as i64;

const FORMATS: [(&str, Format); 3] = [("md", Format::Markdown), ("csv", Format::Csv), ("json", Format::Json)];

impl BenchArguments {
    /// The report's form, if one was asked for.
    pub fn format(&self) -> Option<Format> {
        if self.json { Some(Format::Json) } else { self.output }
    }
}

impl TestArguments {
    /// Returns `true` if no test was requested.
    pub fn is_empty(&self) -> bool {
        self.pp.is_empty() && self.tg.is_empty()
    }
}

/// Runs the command.
pub fn run(arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    if !arguments.tests.is_empty() {
        return throughput::run(arguments);
    }
    let json = match arguments.format() {
        None => false,
        Some(Format::Json) => true,
        Some(Format::Markdown | Format::Csv) => {
            return Err(usage("--output", "md and csv are forms of the tests of raw speed (--pp, --tg)"));
        }
    };
    let talk = Verbosity::unless(arguments.quiet);
    let (prompts, files) = (read_prompts(arguments)?, open(arguments, talk)?);
    let methods = methods(arguments, &files)?;
    let sampling = arguments.sampling.options(None);
    sampling.check()?;
    sampling.check_tokens(files.target.config.vocab_size)?;
    if let Some(grammar) = &sampling.grammar {
        files.target.text.check_grammar(grammar)?;
    }
    let context = load::context(&arguments.models, &files, talk);
    let prompts = encode(&prompts, arguments, &files, context)?;
    let draft_name = files.draft().map(|draft| draft.name().to_owned());
    let device = arguments.models.device.open()?;
    let models = files.upload(&device, &arguments.models, context, talk)?;
    let mut runs = configurations(&methods, arguments)
        .into_iter()
        .map(|(method, drafts, with_ngrams)| {
            let (run_ahead, sampling) = (arguments.run_ahead, sampling.clone());
            let options = SequenceOptions::default()
                .method(method)
                .drafts(drafts)
                .context(context)
                .run_ahead(run_ahead)
                .with_ngrams(with_ngrams)
                .sampling(sampling);
            Ok(Run::new(models.sequence(options)?))
        })
        .collect::<pard::Result<Vec<_>>>()?;

    interrupt::listen()?;
    let bar = talk.bar("answering".to_owned(), "{msg} {wide_bar} {pos}/{len}");
    bar.set_length(((prompts.len() + 1) * runs.len()) as u64);
    let mut done = 0;
    let ask = |runs: &mut [Run], tokens: &[u32], max_tokens: usize| -> anyhow::Result<Vec<Answer>> {
        let answer_next = |run: &mut Run| {
            bar.inc(1);
            let limits = Limits::default().max_tokens(max_tokens);
            answer(&mut run.sequence, &models.target, tokens, limits, Begin::Anew, |_| Ok(()))
        };
        runs.iter_mut().map(answer_next).collect()
    };
    // Not counted: kernels are compiled when they are first used.
    for run in &mut runs {
        run.sequence.warm_up()?;
        models.prepare(&mut run.sequence, talk)?;
    }
    let first = ask(&mut runs, &prompts[0].1, WARM_UP_TOKENS.min(arguments.max_tokens))?;
    let affordable = arguments.within.map_or(usize::MAX, |seconds| affordable(seconds, &first, prompts.len()));
    if affordable < arguments.max_tokens {
        talk.note(&format!("answers of {affordable} tokens, which take about the time allowed"));
    }
    let max_tokens = arguments.max_tokens.min(affordable);
    for (_, tokens) in &prompts {
        let answers = ask(&mut runs, tokens, max_tokens)?;
        if answers.iter().any(|answer| answer.finish == FinishReason::Cancelled) {
            break;
        }
        for (run, answer) in runs.iter_mut().zip(answers) {
            run.count(answer);
        }
        done += 1;
    }
    bar.finish_and_clear();

    let draft = draft_name.as_deref();
    let report = Report { models: &models, draft, context, prompts: &prompts[..done], runs: &runs };
    match json {
        true => output::print(&report.as_json().to_string())?,
        false => output::print(&report.as_text())?,
    }
    if done < prompts.len() {
        output::note(&format!("ended by Ctrl-C after {done} of {} prompts", prompts.len()));
        return Ok(interrupt::exit_code());
    }
    Ok(if report.is_lossless() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read_prompts(arguments: &BenchArguments) -> anyhow::Result<Vec<Prompt>> {
    let mut prompts = match &arguments.prompts {
        Some(path) => prompt::read_lines(path)?,
        None => BUILT_IN.map(|text| Prompt::Text(text.to_owned())).to_vec(),
    };
    prompts.truncate(arguments.limit.map_or(usize::MAX, |limit| limit as usize));
    Ok(prompts)
}

fn open(arguments: &BenchArguments, talk: Verbosity) -> anyhow::Result<Files> {
    let speculates = |&method: &Method| matches!(method, Method::Vsd | Method::Pard);
    arguments.models.check_draft("--methods", arguments.methods.iter().any(speculates))?;
    arguments.models.check_draft("--with-ngrams", arguments.with_ngrams)?;
    let proposes = lengths(arguments).iter().any(|drafts| drafts.most() > 0);
    arguments.models.check_draft("--draft-len", proposes && !arguments.methods.contains(&Method::Ngram))?;
    let wants_draft = arguments.methods.is_empty() || arguments.methods.iter().any(speculates);
    Ok(Files::open(&arguments.models, wants_draft && proposes, talk)?)
}

/// Length of answers to `prompts` prompts that take `seconds` in all, if each run goes on as in its answer of `first`.
fn affordable(seconds: u32, first: &[Answer], prompts: usize) -> usize {
    let reading: f64 = first.iter().map(|answer| answer.statistics.prefill.as_secs_f64()).sum();
    let token = first.iter().map(|answer| 1.0 / tokens_per_second(answer.output.len(), &answer.statistics).max(1e-9));
    let seconds = f64::from(seconds) / prompts as f64 - reading;
    ((seconds / token.sum::<f64>().max(1e-9)) as usize).max(WARM_UP_TOKENS)
}

/// Every K that was asked for.
fn lengths(arguments: &BenchArguments) -> Vec<DraftLength> {
    match arguments.draft_len.is_empty() {
        true => vec![arguments.models.drafts(None)],
        false => arguments.draft_len.iter().map(|&drafts| arguments.models.drafts(Some(drafts))).collect(),
    }
}

/// Every method with every K, without and with n-grams in the draft's place; AR, which proposes nothing, once.
fn configurations(methods: &[Method], arguments: &BenchArguments) -> Vec<(Method, DraftLength, bool)> {
    let mut configurations = Vec::new();
    for &method in methods {
        let lengths = match method {
            // N-grams need no draft.
            Method::Ngram if arguments.draft_len.is_empty() => vec![DraftLength::Auto],
            Method::Ngram => arguments.draft_len.clone(),
            _ => lengths(arguments),
        };
        for drafts in lengths {
            let plain = method == Method::Ar || drafts.most() == 0;
            let configuration =
                if plain { (Method::Ar, DraftLength::Fixed(0), false) } else { (method, drafts, false) };
            if !configurations.contains(&configuration) {
                configurations.push(configuration);
                if arguments.with_ngrams && matches!(method, Method::Vsd | Method::Pard) && !plain {
                    configurations.push((method, drafts, true));
                }
            }
        }
    }
    configurations
}

/// Those asked for, AR first, or all that the draft allows.
fn methods(arguments: &BenchArguments, files: &Files) -> anyhow::Result<Vec<Method>> {
    let mut methods = arguments.methods.clone();
    if methods.is_empty() {
        return Ok(files.methods());
    }
    methods.sort_by_key(|&method| method as u8);
    methods.dedup();
    methods.iter().try_for_each(|&method| files.check(method))?;
    Ok(methods)
}

/// Every prompt with its tokens; all are checked before any is answered.
fn encode<'a>(
    prompts: &'a [Prompt],
    arguments: &BenchArguments,
    files: &Files,
    context: usize,
) -> anyhow::Result<Vec<(&'a Prompt, Vec<u32>)>> {
    let encoded = prompts.iter().enumerate().map(|(index, prompt)| {
        let fits = |tokens: Vec<u32>| match tokens.len() < context {
            true => Ok((prompt, tokens)),
            false => Err(Error::ContextFull { tokens: tokens.len(), context }.into()),
        };
        let tokens = prompt.tokens(&files.target.text, &arguments.style).and_then(fits);
        tokens.map_err(|error: anyhow::Error| error.context(format!("prompt {}", index + 1)))
    });
    encoded.collect()
}
