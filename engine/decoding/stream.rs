//! An answer as an asynchronous stream, for any executor. Waiting for a GPU blocks, so the sequence works on a thread of its
//! own and wakes whoever waits; polling it from the executor's threads would hold up all else that runs there.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use futures_core::Stream;

use super::completion::{FinishReason, Limits, Piece};
use super::generate::Generation;
use super::sequence::Sequence;
use crate::error::{Error, Result};
use crate::text::ChatTokenizer;

/// An answer being written on a thread of its own: a stream of [`Piece`]s, one for each round. Dropping it ends the answer
/// after the round at work; it does not wait for that. A slow reader finds all that was written meanwhile.
pub struct AnswerStream {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<Sequence>>,
}

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Result<Piece>>,
    waker: Option<Waker>,
    finish: Option<FinishReason>,
    /// Set once no more pieces will come.
    is_over: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.state();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Says that nothing more will come, even where the writer panics.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.finish.get_or_insert(FinishReason::Failed);
            state.is_over = true;
        });
    }
}

impl AnswerStream {
    /// Lets `sequence` read `prompt` and write an answer of the model that `text` belongs to. An error is the stream's
    /// last item.
    ///
    /// # Errors
    ///
    /// [`Error::Thread`].
    pub fn start(sequence: Sequence, text: &ChatTokenizer, prompt: Vec<u32>, limits: Limits) -> Result<AnswerStream> {
        let shared = Arc::new(Shared::default());
        let (ending, text) = (Ending(shared.clone()), text.clone());
        let write = move || {
            let mut sequence = sequence;
            let shared = &ending.0;
            if let Err(error) = write(&mut sequence, &text, &prompt, limits, shared) {
                shared.change(|state| state.pieces.push_back(Err(error)));
            }
            sequence
        };
        let writer = std::thread::Builder::new().name("pard answer".to_owned()).spawn(write);
        Ok(AnswerStream { shared, writer: Some(writer.map_err(|source| Error::Thread { source })?) })
    }

    /// Ends the answer after the round at work. Pieces written so far can still be read.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }

    /// Why the answer ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.shared.state().finish
    }

    /// Ends the answer, waits for the round at work, and returns the sequence, for the next answer and for its statistics;
    /// none if its thread panicked.
    pub fn into_sequence(mut self) -> Option<Sequence> {
        self.cancel();
        self.writer.take()?.join().ok()
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Stream for AnswerStream {
    type Item = Result<Piece>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        let mut state = self.shared.state();
        match state.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(piece)),
            None if state.is_over => Poll::Ready(None),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn write(sequence: &mut Sequence, text: &ChatTokenizer, prompt: &[u32], limits: Limits, shared: &Shared) -> Result<()> {
    let keep_going = || !shared.is_cancelled();
    let mut generation = Generation::start_while(sequence, text, prompt, limits, &keep_going)?;
    while generation.finish_reason().is_none() {
        let piece = match shared.is_cancelled() {
            true => Piece { text: generation.cancel(), ..Piece::default() },
            false => generation.round()?,
        };
        shared.change(|state| {
            state.finish = generation.finish_reason();
            if !piece.text.is_empty() || !piece.tokens.is_empty() {
                state.pieces.push_back(Ok(piece));
            }
        });
    }
    shared.change(|state| state.finish = generation.finish_reason());
    Ok(())
}
