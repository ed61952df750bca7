//! `pard chat`: a conversation, on a terminal or line by line from a pipe. The sequence goes on from the turn before, so
//! that only what is new is read.

mod command;
mod lines;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use pard::Error;
use pard::checkpoint::options::SourceOptions;
use pard::decoding::{FinishReason, Limits, Method, Sequence, Statistics};
use pard::low_level::gpu::Device;
use pard::model::Weights;
use pard::text::{Conversation, Message, Rendering};
use serde_json::{Value, json};

use crate::answer::{self, Answer, Begin, Read, tokens_per_second};
use crate::args::{DecodingArguments, one_of};
use crate::load::{LoadedFiles, Models};
use crate::output::{self, Verbosity};
use crate::{interrupt, prompt, terminal, text_file};
use command::Line;
use lines::Lines;

#[derive(Args)]
pub struct ChatArguments {
    /// System message, put before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Turn thinking before the answer on or off, if the model's template supports it
    #[arg(long, value_name = "on|off", value_parser = one_of(&[("on", true), ("off", false)]))]
    pub thinking: Option<bool>,
    /// Go on with the conversation that `/save` wrote to this file
    #[arg(long, value_name = "FILE")]
    pub load: Option<PathBuf>,
    /// Neither read nor keep the history of lines
    #[arg(long)]
    pub no_history: bool,
    #[command(flatten)]
    pub decoding: DecodingArguments,
    /// Print no notices, progress and statistics
    #[arg(short, long)]
    pub quiet: bool,
}

/// Runs the command.
pub fn run(arguments: &ChatArguments) -> anyhow::Result<ExitCode> {
    let talk = Verbosity::unless(arguments.quiet);
    let rendering = Rendering::default().enable_thinking(arguments.thinking);
    let mut conversation = Conversation::new(Vec::new(), rendering.clone());
    if let Some(path) = &arguments.load {
        conversation = Conversation::new(read(path)?, rendering.clone());
    }
    if let Some(system) = &arguments.system {
        conversation.set_system(Some(system));
    }
    let mut chat = Chat::open(arguments.decoding.clone(), conversation, rendering, talk.briefly())?;
    let history = SourceOptions::from_env().cache.map(|cache| cache.join("chat-history"));
    let mut lines = Lines::open(history.filter(|_| !arguments.no_history))?;
    talk.note(&output::wrapped(&chat.model()));
    // From the first line on: Ctrl-C may come before an answer has begun.
    let _quiet = lines.is_terminal().then(terminal::Quiet::new);
    if lines.is_terminal() {
        talk.note("/help lists what else there is; Ctrl-C ends an answer, Ctrl-D the chat");
    }

    // On a terminal the editor takes Ctrl-C itself, and one that comes just after an answer was meant for that.
    let idle = if lines.is_terminal() { interrupt::PATIENT } else { 0 };
    interrupt::listen()?;
    let mut failed = false;
    loop {
        interrupt::forget();
        interrupt::allow(idle);
        let Some(line) = lines.next()? else { break };
        match chat.take(&line) {
            Ok(Next::Line) => {}
            Ok(Next::End) => break,
            Err(error) if is_final(&error) => return Err(error),
            Err(error) => {
                failed = true;
                output::note(&format!("error: {}", output::one_line(&error)));
            }
        }
    }
    // Somebody who reads the errors needs no exit code; a script does.
    Ok(ExitCode::from(u8::from(failed && !lines.is_terminal())))
}

/// Returns `true` if no further answer is possible, or if nobody would see it.
fn is_final(error: &anyhow::Error) -> bool {
    output::is_closed_pipe(error) || matches!(error.downcast_ref(), Some(Error::DeviceLost { .. }))
}

/// Next action of the chat.
enum Next {
    Line,
    End,
}

/// A model and what was said to it.
struct Chat {
    decoding: DecodingArguments,
    device: Device,
    models: Models,
    sequence: Sequence,
    conversation: Conversation,
    rendering: Rendering,
    answers: usize,
    /// Tokens of all answers.
    tokens: usize,
    statistics: Statistics,
    /// Statistics of the last answer, in words.
    last: String,
    talk: Verbosity,
}

impl Chat {
    fn open(
        decoding: DecodingArguments,
        conversation: Conversation,
        rendering: Rendering,
        talk: Verbosity,
    ) -> anyhow::Result<Chat> {
        let prepared = prepared(&decoding, talk)?;
        prompt::note_thinking(&prepared.files.target.text, rendering.enable_thinking, talk);
        let device = decoding.models.device.open()?;
        let (models, sequence) = prepared.upload(&device, &decoding, talk)?;
        Ok(Chat {
            decoding,
            device,
            models,
            sequence,
            conversation,
            rendering,
            answers: 0,
            tokens: 0,
            statistics: Statistics::default(),
            last: String::new(),
            talk,
        })
    }

    /// Does what a line asks for.
    fn take(&mut self, line: &str) -> anyhow::Result<Next> {
        match Line::of(line) {
            Line::Empty => {}
            Line::Say(message) => self.answer(message)?,
            Line::Command("/exit" | "/quit" | "/bye", _) => return Ok(Next::End),
            Line::Command("/help", _) => output::note(&command::help()),
            Line::Command("/reset", _) => {
                self.conversation.reset();
                self.talk.note("a new conversation");
            }
            Line::Command("/stats", _) => output::note(&self.totals()),
            Line::Command("/system", "") => output::note(self.conversation.system().unwrap_or("(none)")),
            Line::Command("/system", "none") => {
                self.conversation.set_system(None);
                self.talk.note("no system message from now on");
            }
            Line::Command("/system", text) => {
                self.conversation.set_system(Some(text));
                self.talk.note(&format!("system message from now on: {text}"));
            }
            Line::Command("/save" | "/load", "") => anyhow::bail!("name a file behind it"),
            Line::Command("/save", path) => self.save(Path::new(path))?,
            Line::Command("/load", path) => self.load(Path::new(path))?,
            Line::Command("/model", "") => output::note(&self.model()),
            Line::Command("/model", names) => self.change_model(names)?,
            Line::Command(other, _) => anyhow::bail!("there is no command {other}; /help lists them"),
        }
        Ok(Next::Line)
    }

    fn answer(&mut self, message: &str) -> anyhow::Result<()> {
        let prompt = self.conversation.ask(&self.models.target.text, message)?;
        let context = self.sequence.options().context;
        if prompt.len() >= context {
            self.conversation.take_back();
            anyhow::bail!(
                "with this the conversation has {} tokens, and the context holds {context}; it was not said. /reset \
                 begins a new conversation, and `pard chat -c TOKENS` makes room for a longer one",
                prompt.len()
            );
        }
        interrupt::allow(interrupt::PATIENT);
        let limits = Limits::default()
            .max_tokens(self.decoding.max_tokens.unwrap_or(usize::MAX))
            .min_tokens(self.decoding.min_tokens)
            .stop(self.decoding.stop.clone());
        let mut shown = false;
        let show = |piece: &str| {
            shown = true;
            let mut out = io::stdout().lock();
            out.write_all(piece.as_bytes())?;
            out.flush()
        };
        let read = self.read(&prompt).inspect_err(|_| self.conversation.take_back())?;
        if interrupt::requested() {
            self.take_back();
            return Ok(());
        }
        let answered =
            answer::answer(&mut self.sequence, &self.models.target, &prompt, limits, Begin::FromCaches, show);
        self.models.keep_measured(&self.sequence);
        if shown || answered.is_ok() {
            output::print("")?;
        }
        let mut answer = answered.inspect_err(|_| self.conversation.take_back())?;
        read.count_in(&mut answer.statistics);
        if answer.output.is_empty() {
            self.take_back();
            return Ok(());
        }
        self.conversation.answer(&self.models.target.text, &answer.text, &answer.output);
        self.answers += 1;
        self.tokens += answer.output.len();
        self.statistics += &answer.statistics;
        self.note_answer(&answer, prompt.len() + answer.output.len(), context);
        Ok(())
    }

    /// Reads the prompt but for its end, and shows how far it has come.
    fn read(&mut self, prompt: &[u32]) -> pard::Result<Read> {
        let bar = self.talk.bar("reading the prompt".to_owned(), "{msg} {wide_bar} {pos}/{len} tokens");
        // A short prompt is read before anybody would see it.
        let read = answer::read(&mut self.sequence, prompt, |tokens| {
            bar.set_length(prompt.len() as u64);
            bar.set_position(tokens as u64);
        });
        bar.finish_and_clear();
        read
    }

    /// Forgets a question whose answer was ended before it began.
    fn take_back(&mut self) {
        self.conversation.take_back();
        self.talk.note("ended before the answer began; it was not said");
    }

    fn note_answer(&mut self, answer: &Answer, used: usize, context: usize) {
        if !answer.logprobs.is_empty() {
            self.talk.note(&output::dimmed(&answer::logprobs_lines(&self.models.target, &answer.logprobs)));
        }
        let line = format!("{}; context: {used} of {context}", answer::short_summary(answer));
        self.talk.note(&output::dimmed(&output::wrapped(&line)));
        self.last = answer::summary(&self.sequence, answer);
        if answer.finish == FinishReason::Context {
            self.talk.note("the context is full: /reset begins a new conversation, `pard chat -c TOKENS` makes room");
        }
    }

    /// What the last answer and all together took.
    fn totals(&self) -> String {
        let statistics = &self.statistics;
        let accepted = statistics.accepted_per_position();
        let mut line = format!(
            "{} answer{} of {} tokens in {:.2} s, {:.1} tokens/s; prompts: {} tokens, {} of them read before, {:.2} s; {} \
             rounds of {:.2} tokens; context: {} of {}",
            self.answers,
            if self.answers == 1 { "" } else { "s" },
            self.tokens,
            statistics.decode.as_secs_f64(),
            tokens_per_second(self.tokens, statistics),
            statistics.prompt_tokens,
            statistics.reused_tokens,
            statistics.prefill.as_secs_f64(),
            statistics.rounds,
            statistics.tokens_per_round(),
            self.sequence.tokens().len(),
            self.sequence.options().context,
        );
        if !accepted.is_empty() {
            let shares: Vec<String> = accepted.iter().map(|share| format!("{share:.2}")).collect();
            line.push_str(&format!("; accepted at 1, 2, ..: {}", shares.join(" ")));
        }
        if !self.last.is_empty() {
            line = format!("the last one: {}\n{line}", self.last);
        }
        line
    }

    /// Models, adapter, method, and the speed if it is known.
    fn model(&self) -> String {
        let options = self.sequence.options();
        let size = |weights: &Weights| output::bytes(weights.bytes());
        let target = &self.models.target;
        let draft = self.models.draft.as_ref();
        let draft = draft.map(|draft| format!(", drafted for by {} ({})", draft.name, size(&draft.model)));
        let speed = self.models.costs(&self.sequence).map(|costs| 1.0 / costs.target.of(1.0).max(1e-9));
        let speed = speed.map(|speed| format!("; some {speed:.0} tokens/s, drafts aside"));
        format!(
            "{} ({}) on {}{}; {}, K = {}; context: {}{}",
            target.name(),
            size(&target.weights),
            self.device.name(),
            draft.unwrap_or_default(),
            options.proposers(),
            options.drafts,
            options.context,
            speed.unwrap_or_default(),
        )
    }

    /// Goes on with another model, and with this one if that cannot be had.
    fn change_model(&mut self, names: &str) -> anyhow::Result<()> {
        let (model, draft) = names.split_once(char::is_whitespace).map_or((names, None), |(a, b)| (a, Some(b.trim())));
        let mut decoding = self.decoding.clone();
        decoding.models.model = model.to_owned();
        decoding.models.draft = draft.map(str::to_owned);
        if draft.is_none() && decoding.method != Some(Method::Ngram) {
            (decoding.method, decoding.draft_len, decoding.models.mask_token) = (None, None, None);
            decoding.with_ngrams = false;
        }
        let prepared = prepared(&decoding, self.talk)?;
        let (models, sequence) = prepared.upload(&self.device, &decoding, self.talk)?;
        (self.models, self.sequence, self.decoding) = (models, sequence, decoding);
        self.talk.note(&self.model());
        // Its tokens are not the other's.
        self.conversation = Conversation::new(self.conversation.messages().to_vec(), self.rendering.clone());
        Ok(())
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let conversation = json!({ "model": self.models.target.name(), "messages": self.conversation.messages() });
        std::fs::write(path, format!("{conversation}\n"))
            .map_err(|source| Error::Write { path: path.to_owned(), source })?;
        self.talk.note(&format!("{} messages in {}", self.conversation.messages().len(), path.display()));
        Ok(())
    }

    fn load(&mut self, path: &Path) -> anyhow::Result<()> {
        self.conversation = Conversation::new(read(path)?, self.rendering.clone());
        self.talk.note(&format!("{} messages from {}", self.conversation.messages().len(), path.display()));
        Ok(())
    }
}

/// The models' files, which must be able to chat.
fn prepared(decoding: &DecodingArguments, talk: Verbosity) -> anyhow::Result<LoadedFiles> {
    let prepared = LoadedFiles::open(decoding, talk)?;
    let text = &prepared.files.target.text;
    anyhow::ensure!(
        text.has_chat_template(),
        "{} has no chat template: it is a plain text model; `pard generate --raw` continues a text",
        text.model_name
    );
    Ok(prepared)
}

/// The conversation in a file: an object with `messages`, or the messages alone. A question without an answer at the end
/// is left out.
fn read(path: &Path) -> anyhow::Result<Vec<Message>> {
    let text = text_file::read(path)?;
    let wrong = || format!("{}: it holds no conversation, a JSON object with `messages`", path.display());
    let json: Value = serde_json::from_str(&text).with_context(wrong)?;
    let messages = json.get("messages").unwrap_or(&json).clone();
    let mut messages: Vec<Message> = serde_json::from_value(messages).with_context(wrong)?;
    while messages.last().is_some_and(|message| message.role == "user") {
        messages.pop();
    }
    Ok(messages)
}
