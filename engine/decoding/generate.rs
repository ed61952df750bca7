//! From rounds of tokens to a stream of text that knows when to end.

use super::completion::{Completion, FinishReason, Limits, Piece};
use super::engine::Engine;
use super::options::SequenceOptions;
use super::sampling_params::TokenLogprobs;
use super::sequence::Sequence;
use crate::error::{Error, OptionName, Result};
use crate::text::{ChatTokenizer, Prompt};

/// An answer being written: an iterator over pieces of text, each of whole characters. Dropping it ends the answer.
pub struct Generation<'a> {
    sequence: Writer<'a>,
    completion: Completion,
}

/// The sequence that writes an answer.
enum Writer<'a> {
    Own(Box<Sequence>),
    Lent(&'a mut Sequence),
}

impl Writer<'_> {
    fn get(&mut self) -> &mut Sequence {
        match self {
            Writer::Own(sequence) => sequence,
            Writer::Lent(sequence) => sequence,
        }
    }
}

impl<'a> Generation<'a> {
    /// Reads `prompt` and stands ready to answer it with the model that `text` belongs to.
    ///
    /// # Errors
    ///
    /// Those of [`Sequence::start`].
    pub fn start(
        sequence: &'a mut Sequence,
        text: &ChatTokenizer,
        prompt: &[u32],
        limits: Limits,
    ) -> Result<Generation<'a>> {
        Generation::start_while(sequence, text, prompt, limits, &|| true)
    }

    /// As [`Generation::start`]; `keep_going` is asked between the prompt's chunks, and where it returns `false`, the answer
    /// is cancelled before it begins.
    ///
    /// # Errors
    ///
    /// Those of [`Sequence::start`].
    pub fn start_while(
        sequence: &'a mut Sequence,
        text: &ChatTokenizer,
        prompt: &[u32],
        limits: Limits,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Generation<'a>> {
        sequence.start_while(prompt, keep_going)?;
        Generation::after(Writer::Lent(sequence), text, limits, keep_going)
    }

    /// As [`Generation::start`], but what the sequence's caches hold of `prompt` already is not read again.
    ///
    /// # Errors
    ///
    /// Those of [`Sequence::resume`].
    pub fn resume(
        sequence: &'a mut Sequence,
        text: &ChatTokenizer,
        prompt: &[u32],
        limits: Limits,
    ) -> Result<Generation<'a>> {
        Generation::resume_while(sequence, text, prompt, limits, &|| true)
    }

    /// As [`Generation::start_while`], but what the sequence's caches hold of `prompt` already is not read again: the next
    /// answer of a conversation, of which [`crate::text::Conversation`] gives the tokens.
    ///
    /// # Errors
    ///
    /// Those of [`Sequence::resume`].
    pub fn resume_while(
        sequence: &'a mut Sequence,
        text: &ChatTokenizer,
        prompt: &[u32],
        limits: Limits,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Generation<'a>> {
        sequence.resume_while(prompt, keep_going)?;
        Generation::after(Writer::Lent(sequence), text, limits, keep_going)
    }

    /// Stands ready to answer the prompt that `sequence`, which becomes the answer's own, has read.
    pub(super) fn of(sequence: Sequence, text: &ChatTokenizer, limits: Limits) -> Result<Generation<'static>> {
        Generation::after(Writer::Own(Box::new(sequence)), text, limits, &|| true)
    }

    /// Stands ready to answer the prompt that the sequence has read.
    fn after(
        mut writer: Writer<'a>,
        text: &ChatTokenizer,
        limits: Limits,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Generation<'a>> {
        let sequence = writer.get();
        let (prompt_tokens, context) = (sequence.tokens().len(), sequence.options().context);
        let mut completion = Completion::new(text, limits, prompt_tokens, context);
        completion.hold_end(sequence)?;
        if !keep_going() {
            completion.end(FinishReason::Cancelled);
        }
        Ok(Generation { sequence: writer, completion })
    }

    /// The answer's tokens so far, a stop token at the end included.
    pub fn output(&self) -> &[u32] {
        self.completion.output()
    }

    /// The log-probabilities of [`Generation::output`], one for each token, if the sequence's options ask for them; else
    /// none.
    pub fn logprobs(&self) -> &[TokenLogprobs] {
        self.completion.logprobs()
    }

    /// Why the answer ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.completion.finish_reason()
    }

    /// The sequence at work, with its statistics and its last round.
    pub fn sequence(&self) -> &Sequence {
        match &self.sequence {
            Writer::Own(sequence) => sequence,
            Writer::Lent(sequence) => sequence,
        }
    }

    /// Ends the answer here and gives the text that was held back.
    pub fn cancel(&mut self) -> String {
        self.completion.end(FinishReason::Cancelled)
    }

    /// Runs one round and gives what it adds to the answer. An answer that has ended gets no round.
    ///
    /// # Errors
    ///
    /// Those of [`Sequence::round`]. The answer has ended then: a device that failed once does not answer again.
    pub fn round(&mut self) -> Result<Piece> {
        if self.completion.finish_reason().is_some() {
            return Ok(Piece::default());
        }
        let sequence = self.sequence.get();
        if let Err(error) = sequence.round() {
            self.completion.end(FinishReason::Failed);
            return Err(error);
        }
        Ok(self.completion.take_round(sequence))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<String>;

    /// The next text, after as many rounds as it takes to make some certain.
    fn next(&mut self) -> Option<Result<String>> {
        while self.finish_reason().is_none() {
            match self.round() {
                Ok(piece) if piece.text.is_empty() => {}
                Ok(piece) => return Some(Ok(piece.text)),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

impl Engine {
    /// Reads `prompt` with a sequence of its own and stands ready to answer it: an iterator over pieces of text. A text is
    /// continued, a conversation answered.
    ///
    /// ```no_run
    /// # use pard::{Engine, Message, Result};
    /// # fn answer(engine: &Engine) -> Result<()> {
    /// for piece in engine.generate(Message::user("Who are you?"))? {
    ///     print!("{}", piece?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the engine has no tokenizer; those of [`Prompt::tokens`], [`Engine::add`] and
    /// [`Sequence::start`].
    pub fn generate(&self, prompt: impl Into<Prompt>) -> Result<Generation<'static>> {
        self.generate_with(prompt, self.defaults(), Limits::default())
    }

    /// As [`Engine::generate`], with a sequence of `options`, until the answer ends or reaches `limits`.
    ///
    /// # Errors
    ///
    /// As [`Engine::generate`].
    pub fn generate_with(
        &self,
        prompt: impl Into<Prompt>,
        options: SequenceOptions,
        limits: Limits,
    ) -> Result<Generation<'static>> {
        let text = self.text().ok_or_else(|| {
            let reason = "this engine was made of weights alone, and writes tokens only".to_owned();
            Error::Option { option: OptionName::Text, reason }
        })?;
        let tokens = prompt.into().tokens(text)?;
        let mut sequence = self.add(options)?;
        sequence.start(&tokens)?;
        Generation::of(sequence, text, limits)
    }
}
