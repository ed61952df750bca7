//! `pard bench --pp N --tg N`: raw speed, measured as llama.cpp's `llama-bench` measures it, so that the two can be held
//! against each other. `ppN` reads N random tokens into an empty cache and chooses the token after them; `tgN` writes N
//! tokens after one, by plain decoding and past any stop token. Each test runs once before it counts.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use pard::decoding::{Sequence, SequenceOptions};

use super::samples::{Samples, Subject, Test};
use super::{BenchArguments, Format, TestArguments};
use crate::load::Files;
use crate::output::{self, Verbosity};
use crate::{inspect, interrupt};

/// Runs the command.
pub fn run(arguments: &BenchArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    let tests = tests(&arguments.tests);
    let files = Files::open(&arguments.models, false, talk)?;
    // Either kind of test holds one token more than its name says: what is chosen at last, or what stands at first.
    let needed = tests.iter().map(|test| test.tokens() + 1).max().unwrap_or(0);
    let context = arguments.models.memory.context.map_or(0, |tokens| tokens as usize).max(needed);
    files.note_long_context(context, talk);
    let (path, parameters) =
        (files.target.path.clone(), inspect::parameters(&files.target.config, &*files.target.checkpoint));
    let device = arguments.models.device.open()?;
    let models = files.upload(&device, &arguments.models, context, talk)?;
    let options = SequenceOptions::default().context(context).run_ahead(arguments.run_ahead);
    let mut sequence = models.sequence(options)?;

    interrupt::listen()?;
    let begin = models.target.text.begin_token().unwrap_or(0);
    let prompt = random_tokens(needed, models.target.weights.config().vocab_size);
    let subject = Subject { model: &models.target, path, parameters, context };
    let format = arguments.format().unwrap_or(Format::Markdown);
    let bar = talk.bar(String::new(), "{msg} {wide_bar} {pos}/{len}");
    bar.set_length((tests.len() * (arguments.repetitions as usize + 1)) as u64);
    let print = |text: String| bar.suspend(|| output::print(&text));
    match format {
        Format::Markdown => print(subject.markdown_heading())?,
        Format::Csv => print(subject.csv_heading())?,
        Format::Json => {}
    }
    let mut done = Vec::new();
    for &test in &tests {
        let start = match test {
            Test::Prompt(tokens) => &prompt[..tokens],
            Test::Generation(_) => &[begin],
        };
        let Some(samples) = sample(&mut sequence, test, start, arguments.repetitions as usize, &bar)? else { break };
        match format {
            Format::Markdown => print(subject.markdown_row(&samples))?,
            Format::Csv => print(subject.csv_row(&samples))?,
            Format::Json => {}
        }
        done.push(samples);
    }
    bar.finish_and_clear();
    match format {
        Format::Markdown => output::print(&subject.markdown_ending())?,
        Format::Csv => {}
        Format::Json => output::print(&subject.as_json(&done).to_string())?,
    }
    if done.len() < tests.len() {
        output::note(&format!("ended by Ctrl-C after {} of {} tests", done.len(), tests.len()));
    }
    Ok(interrupt::exit_code())
}

/// The tests asked for, prompts first.
fn tests(arguments: &TestArguments) -> Vec<Test> {
    let prompts = arguments.pp.iter().map(|&tokens| Test::Prompt(tokens as usize));
    prompts.chain(arguments.tg.iter().map(|&tokens| Test::Generation(tokens as usize))).collect()
}

/// The times of all repetitions after one that does not count; none if Ctrl-C ended them.
fn sample(
    sequence: &mut Sequence,
    test: Test,
    start: &[u32],
    repetitions: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Option<Samples>> {
    bar.set_message(test.name());
    let mut times = Vec::with_capacity(repetitions + 1);
    for _ in 0..=repetitions {
        let Some(time) = time(sequence, test, start)? else { return Ok(None) };
        times.push(time);
        bar.inc(1);
    }
    Ok(Some(Samples::new(test, times.split_off(1))))
}

/// Runs the test and returns its duration; none if Ctrl-C ended it.
fn time(sequence: &mut Sequence, test: Test, start: &[u32]) -> pard::Result<Option<Duration>> {
    let keep_going = || !interrupt::requested();
    let mut begin = Instant::now();
    sequence.start_while(start, &keep_going)?;
    let rounds = match test {
        // The prompt's last token is a row of the first round.
        Test::Prompt(_) => 1,
        Test::Generation(tokens) => {
            begin = Instant::now();
            tokens
        }
    };
    for _ in 0..rounds {
        if !keep_going() {
            return Ok(None);
        }
        sequence.round()?;
    }
    Ok(Some(begin.elapsed()))
}

/// The same tokens in every run (splitmix64; Steele, Lea, Flood 2014).
fn random_tokens(count: usize, vocab: usize) -> Vec<u32> {
    let mut state = 0_u64;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % vocab as u64) as u32
    };
    std::iter::repeat_with(next).take(count).collect()
}
