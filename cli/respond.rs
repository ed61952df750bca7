//! `pard respond`: what a model says to many prompts, as conversations to train on. Each is written as soon as it is done,
//! and a second run goes on where the first one ended.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, value_parser};
use pard::Error;
use pard::checkpoint::resolve::DEFAULT_MODEL;
use pard::decoding::{FinishReason, RespondOptions, cache_positions, respond};
use pard::low_level::forward::ModelRunner;
use pard::low_level::ops::MAX_ROWS;
use pard::model::Model;
use pard::text::{ChatTokenizer, Message, Rendering, TextStream};
use serde_json::{Value, json};

use crate::args::{DeviceArguments, LogitArguments, MemoryArguments, at_least_one, one_of, temperature};
use crate::output::Verbosity;
use crate::prompt::{self, Prompt};
use crate::text_file;
use crate::usage::usage;
use crate::{interrupt, load};

/// A prompt and what it is called in the file of responses.
struct Job {
    index: usize,
    messages: Vec<Message>,
    tokens: Vec<u32>,
}

#[derive(Args)]
pub struct RespondArguments {
    /// The model: `smollm2`, a folder, a .gguf file, or a repository of the Hugging Face hub (`owner/name[:Q4_K_M]`)
    #[arg(short, long, default_value = DEFAULT_MODEL)]
    pub model: String,
    /// Prompts, a JSON object a line with `prompt`, `messages`, `turns` (the first is taken), `data`, `question`, or
    /// `instruction` and `input`
    #[arg(long, value_name = "FILE.jsonl", num_args = 1.., required_unless_present = "free")]
    pub prompts: Vec<PathBuf>,
    /// Let the model write N prompts as well, in the place of the user
    #[arg(long, value_name = "N", conflicts_with = "prompts", value_parser = at_least_one)]
    pub free: Option<usize>,
    /// File for the conversations, a JSON object a line; those it already holds are not written again
    #[arg(short, long, value_name = "FILE.jsonl")]
    pub out: PathBuf,
    /// Draw tokens from softmax(logits / T); 0 takes the likeliest [default: 0, with --free 1]
    #[arg(short, long, value_name = "T", value_parser = temperature)]
    pub temperature: Option<f32>,
    /// Names the draws: a seed gives the same texts, however many are written at once
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub logits: LogitArguments,
    /// Tokens of each response at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 512, value_parser = at_least_one)]
    pub max_tokens: usize,
    /// Responses written at once
    #[arg(long, value_name = "N", default_value_t = MAX_ROWS as u8, value_parser = value_parser!(u8).range(1..=MAX_ROWS as i64))]
    pub parallel: u8,
    /// Turn thinking before the answer on or off, if the model's template supports it
    #[arg(long, value_name = "on|off", value_parser = one_of(&[("on", true), ("off", false)]))]
    pub thinking: Option<bool>,
    #[command(flatten)]
    pub memory: MemoryArguments,
    #[command(flatten)]
    pub device: DeviceArguments,
    /// Print no notices and progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// Runs the command.
pub fn run(arguments: &RespondArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    let files = load::open(&arguments.model, &arguments.device, talk)?;
    // A model without a template is refused once, not for every prompt.
    files.text.chat_template()?;
    prompt::note_thinking(&files.text, arguments.thinking, talk);
    let temperature = arguments.temperature.unwrap_or(if arguments.free.is_some() { 1.0 } else { 0.0 });
    let most = arguments.memory.context(files.config.context);
    let mut jobs = match arguments.free {
        None => read_prompts(arguments, &files.text, most, talk)?,
        Some(count) => {
            let tokens = beginning_of_a_user(&files.text)?;
            (0..count).map(|index| Job { index, messages: Vec::new(), tokens: tokens.clone() }).collect()
        }
    };
    let total = jobs.len();
    let mut out = Conversations::open(&arguments.out)?;
    out.drop_done(&mut jobs)?;
    if jobs.is_empty() {
        talk.note(&format!("{}: all {total} responses are there already", arguments.out.display()));
        return Ok(ExitCode::SUCCESS);
    }

    // Caches for what is needed: every slot has one.
    let longest = jobs.iter().map(|job| job.tokens.len()).max().unwrap_or(0);
    let prompts_room = if arguments.free.is_some() { arguments.max_tokens + TEMPLATE } else { 0 };
    let options = RespondOptions::default()
        .parallel((arguments.parallel as usize).min(jobs.len()))
        .context(most.min(longest.saturating_add(prompts_room).saturating_add(arguments.max_tokens)))
        .max_tokens(arguments.max_tokens)
        .sampling(arguments.logits.options(temperature, arguments.seed))
        .run_ahead(None);
    if let Some(grammar) = &options.sampling.grammar {
        if arguments.free.is_some() {
            return Err(usage("--free", "the model writes prompts as well then, which have no form"));
        }
        files.text.check_grammar(grammar)?;
    }
    let device = arguments.device.open()?;
    let load_options = arguments.memory.load_options();
    let positions = cache_positions(options.context);
    ModelRunner::check(&device, &load_options.plan(&device)?, &files.config, options.parallel, positions)?;
    let model = load::upload(&device, files, load_options, talk)?;
    interrupt::listen()?;
    if arguments.free.is_some() {
        jobs = write_prompts(&model, jobs, options.clone(), arguments, talk)?;
        if interrupt::requested() {
            return Ok(interrupt::exit_code());
        }
    }
    let messages: BTreeMap<usize, Vec<Message>> = jobs.iter().map(|job| (job.index, job.messages.clone())).collect();
    write(&model, jobs, options, "responses", talk, |index, content, finish| {
        let mut messages = messages[&index].clone();
        messages.push(Message::new("assistant", content));
        out.append(&json!({ "index": index, "messages": messages, "finish_reason": finish.name() }))
    })?;
    Ok(interrupt::exit_code())
}

/// Room for what a template puts after a user's turn. A prompt that takes more than there is is skipped.
const TEMPLATE: usize = 64;

/// The prompts of all files; what is wrong with a line is said, and the line is skipped.
fn read_prompts(
    arguments: &RespondArguments,
    text: &ChatTokenizer,
    context: usize,
    talk: Verbosity,
) -> anyhow::Result<Vec<Job>> {
    let (mut jobs, mut lines, mut bad) = (Vec::new(), 0, 0);
    for path in &arguments.prompts {
        let file = text_file::read(path)?;
        for (number, prompt) in prompt::in_lines(&file) {
            // Bad lines count too, so that mending one moves no other.
            match prompt.and_then(|prompt| job(lines, prompt, arguments, text, context)) {
                Ok(job) => jobs.push(job),
                Err(reason) => {
                    bad += 1;
                    talk.note(&format!("{}:{number}: {reason}; skipped", path.display()));
                }
            }
            lines += 1;
        }
    }
    if bad > 0 {
        talk.note(&format!("{bad} of {lines} lines were skipped"));
    }
    let names = || arguments.prompts.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    anyhow::ensure!(!jobs.is_empty(), "{}: no line holds a prompt that can be used", names());
    Ok(jobs)
}

fn job(
    index: usize,
    prompt: Prompt,
    arguments: &RespondArguments,
    text: &ChatTokenizer,
    context: usize,
) -> Result<Job, String> {
    let messages = match prompt {
        Prompt::Text(text) => vec![Message::new("user", text)],
        Prompt::Chat(messages) => messages,
    };
    chat(index, messages, arguments, text, context).map_err(|error| error.to_string())
}

fn chat(
    index: usize,
    messages: Vec<Message>,
    arguments: &RespondArguments,
    text: &ChatTokenizer,
    context: usize,
) -> pard::Result<Job> {
    let rendering = Rendering::default().enable_thinking(arguments.thinking);
    let tokens = text.chat_tokens(&messages, rendering)?;
    if tokens.len() >= context {
        return Err(Error::ContextFull { tokens: tokens.len(), context });
    }
    Ok(Job { index, messages, tokens })
}

/// A conversation up to what the user says first.
fn beginning_of_a_user(text: &ChatTokenizer) -> anyhow::Result<Vec<u32>> {
    let mark = "\u{e000}";
    let rendering = Rendering::default().add_generation_prompt(false);
    let whole = text.chat_template()?.render(&[Message::new("user", mark)], rendering)?;
    let (before, _) = whole
        .split_once(mark)
        .ok_or_else(|| anyhow::anyhow!("the chat template of {} shows nothing of what a user says", text.model_name))?;
    Ok(text.tokenizer.encode(before, pard::text::Special::Keep)?)
}

/// Has the model write what the user says (Xu et al. 2024, "Magpie", arXiv:2406.08464), and gives the prompts that come of
/// it. A turn that found no end or says nothing makes no prompt.
fn write_prompts(
    model: &Model,
    jobs: Vec<Job>,
    options: RespondOptions,
    arguments: &RespondArguments,
    talk: Verbosity,
) -> anyhow::Result<Vec<Job>> {
    let mut prompts = Vec::new();
    let (total, context) = (jobs.len(), options.context);
    write(model, jobs, options, "prompts", talk, |index, content, finish| {
        if finish == FinishReason::Stop && !content.trim().is_empty() {
            let messages = vec![Message::new("user", content)];
            prompts.extend(chat(index, messages, arguments, &model.text, context));
        }
        Ok(())
    })?;
    if !interrupt::requested() && prompts.len() < total {
        talk.note(&format!("{} of {total} prompts had no end or no text; skipped", total - prompts.len()));
    }
    Ok(prompts)
}

/// Hands the model's response to each of `jobs` to `take` as soon as it is done, until Ctrl-C.
fn write(
    model: &Model,
    jobs: Vec<Job>,
    options: RespondOptions,
    what: &str,
    talk: Verbosity,
    mut take: impl FnMut(usize, String, FinishReason) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let bar = talk.bar(what.to_owned(), "{msg} {wide_bar} {pos}/{len} {eta}");
    bar.set_length(jobs.len() as u64);
    let begin = Instant::now();
    let prompts = jobs.into_iter().map(|job| (job.index, job.tokens));
    let mut responses = respond(&model.weights, &model.text.stop_tokens, prompts, options)?;
    let mut count = 0;
    while !responses.is_done() && !interrupt::requested() {
        for response in responses.round()? {
            let mut stream = TextStream::continuing(&model.text.tokenizer);
            let stop = usize::from(response.finish == FinishReason::Stop);
            let tokens = &response.tokens[..response.tokens.len() - stop];
            let mut content: String = tokens.iter().filter_map(|&token| stream.push(token)).collect();
            content.extend(stream.flush());
            take(response.index, content, response.finish)?;
            count += 1;
        }
        let speed = responses.tokens() as f64 / begin.elapsed().as_secs_f64().max(1e-9);
        bar.set_position(count);
        bar.set_message(format!("{what}, {speed:.1} tokens/s"));
    }
    bar.finish_and_clear();
    let (tokens, seconds) = (responses.tokens(), begin.elapsed().as_secs_f64());
    let ended = if interrupt::requested() { "; ended by Ctrl-C, the same command goes on" } else { "" };
    let speed = tokens as f64 / seconds.max(1e-9);
    talk.note(&format!("{count} {what}, {tokens} tokens in {seconds:.2} s, {speed:.1} tokens/s{ended}"));
    Ok(())
}

/// The file of responses: a line each.
struct Conversations<'a> {
    path: &'a Path,
    file: File,
    /// The prompts of its lines, by their indices.
    done: BTreeMap<usize, Vec<Message>>,
}

impl Conversations<'_> {
    /// Opens the file, or makes it. A last line without an end was cut off in writing, and is dropped.
    fn open(path: &Path) -> anyhow::Result<Conversations<'_>> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let text = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(end as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed)?;
        let mut done = BTreeMap::new();
        for (number, line) in text[..end].split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty())
        {
            let (index, messages) = conversation(line).ok_or_else(|| {
                anyhow::anyhow!("{}:{}: no line of this command; name another --out", path.display(), number + 1)
            })?;
            done.insert(index, messages);
        }
        Ok(Conversations { path, file, done })
    }

    /// Drops the jobs whose responses are there.
    fn drop_done(&self, jobs: &mut Vec<Job>) -> anyhow::Result<()> {
        let differs = |job: &&Job| {
            let done = self.done.get(&job.index);
            !job.messages.is_empty() && done.is_some_and(|messages| *messages != job.messages)
        };
        if let Some(job) = jobs.iter().find(differs) {
            anyhow::bail!(
                "{}: its response {} is to another prompt than the one asked for now; name another --out",
                self.path.display(),
                job.index
            );
        }
        jobs.retain(|job| !self.done.contains_key(&job.index));
        Ok(())
    }

    /// Writes one line.
    fn append(&mut self, conversation: &Value) -> anyhow::Result<()> {
        let written = self.file.write_all(format!("{conversation}\n").as_bytes()).and_then(|()| self.file.flush());
        Ok(written.map_err(|source| Error::Write { path: self.path.to_owned(), source })?)
    }
}

/// The index and the prompt of a line.
fn conversation(line: &[u8]) -> Option<(usize, Vec<Message>)> {
    let json: Value = serde_json::from_slice(line).ok()?;
    let index = json.get("index")?.as_u64()? as usize;
    let mut messages: Vec<Message> = serde_json::from_value(json.get("messages")?.clone()).ok()?;
    messages.pop()?;
    Some((index, messages))
}
