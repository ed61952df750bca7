//! The rounds of decoding. Token ids, lengths and positions live on the device; the host records a round's commands,
//! submits them, and reads back which tokens were committed.
//!
//! PARD, arXiv:2504.18583: the draft proposes K tokens in one pass by reading K - 1 mask tokens; the target checks all
//! of them in one pass, as a chain. VSD (arXiv:2211.17192) takes K passes of the draft; AR has none. All three commit
//! exactly what the target alone would, since a row's result does not depend on the rows beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::draft::Draft;
use super::statistics::Statistics;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Pass, Readback};
use crate::model::{Sequence, Transformer};
use crate::ops::{Accept, Inputs, Role, RoundBuffers, RoundParams, Session, Whose, check_row_invariance};

/// The longest draft.
pub const MOST_DRAFTS: usize = 16;

/// The longest context: beyond any model's, and small enough that no size computed from it overflows.
pub const MOST_CONTEXT: usize = 1 << 24;

/// Who proposes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Nobody: one token a round.
    Ar,
    /// An autoregressive draft, in K passes: vanilla speculative decoding.
    Vsd,
    /// A parallel draft, in one pass.
    Pard,
}

impl Method {
    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Method::Ar => "ar",
            Method::Vsd => "vsd",
            Method::Pard => "pard",
        }
    }
}

/// How a decoder works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderOptions {
    /// Who proposes.
    pub method: Method,
    /// K: tokens proposed per round, 0 to [`MOST_DRAFTS`]; 0 is AR.
    pub drafts: usize,
    /// Tokens that prompt and answer may take together.
    pub context: usize,
}

/// One sequence being decoded.
pub struct Decoder {
    device: Device,
    target: Sequence,
    draft: Option<Sequence>,
    mask: u32,
    options: DecoderOptions,
    buffers: Buffers,
    readback: Readback,
    /// Bookkeeping kernels by what they are told, bound on first use.
    inputs: HashMap<(Whose, RoundParams), Inputs>,
    accept: Accept,
    /// The device's session, one readback behind it.
    session: Session,
    /// Committed tokens, the prompt's included.
    tokens: Vec<u32>,
    statistics: Statistics,
}

struct Buffers {
    session: Buffer,
    tokens: Buffer,
    proposals: Buffer,
    choices: Buffer,
    record: Buffer,
}

impl Buffers {
    fn new(device: &Device, context: usize) -> Result<Buffers> {
        let words = |label, count: usize| Buffer::storage(device, label, 4 * count as u64);
        Ok(Buffers {
            session: Buffer::storage(device, "session", size_of::<Session>() as u64)?,
            tokens: words("tokens", context + 2 * MOST_DRAFTS)?,
            proposals: words("proposals", 2 * MOST_DRAFTS)?,
            choices: words("choices", 2 * MOST_DRAFTS)?,
            record: words("record", 2 + MOST_DRAFTS)?,
        })
    }

    fn bound(&self) -> RoundBuffers<'_> {
        let Buffers { session, tokens, proposals, choices, record } = self;
        RoundBuffers { session, tokens, proposals, choices, record }
    }
}

impl Decoder {
    /// A decoder for `target`, with caches of its own.
    ///
    /// Errors: [`Error::Option`] if K is too large or the method lacks its draft, [`Error::NoMaskToken`];
    /// [`Error::Gpu`] if this driver's rounding depends on the number of rows; [`Error::Limit`] or
    /// [`Error::OutOfMemory`] if the caches do not fit.
    pub fn new(target: &Arc<Transformer>, draft: Option<&Draft>, mut options: DecoderOptions) -> Result<Decoder> {
        if options.drafts > MOST_DRAFTS {
            return Err(Error::Option {
                option: "draft length",
                reason: format!("{} is above the supported {MOST_DRAFTS}", options.drafts),
            });
        }
        if !(2..=MOST_CONTEXT).contains(&options.context) {
            let reason = format!("{} is not between 2 and {MOST_CONTEXT} tokens", options.context);
            return Err(Error::Option { option: "context", reason });
        }
        if options.drafts == 0 || options.method == Method::Ar {
            options = DecoderOptions { method: Method::Ar, drafts: 0, ..options };
        }
        let device = target.device().clone();
        if options.method != Method::Ar {
            check_row_invariance(&device, target.plan(), options.drafts + 1)?;
        }
        let buffers = Buffers::new(&device, options.context)?;
        let positions = Decoder::positions(options.context);
        let vocab = target.config().vocab_size;
        let target_sequence = Sequence::new(target, positions, vocab, &buffers.choices)?;
        let mut mask = 0;
        let draft = match (options.method, draft) {
            (Method::Ar, _) => None,
            (_, None) => {
                return Err(Error::Option {
                    option: "draft",
                    reason: format!("the method {} needs a draft model", options.method.name()),
                });
            }
            (method, Some(draft)) => {
                if method == Method::Pard {
                    mask = draft.mask.ok_or_else(|| Error::NoMaskToken { draft: draft.name.clone() })?;
                }
                // A padding id that the target does not have must not be proposed: it could not be fed.
                let limit = draft.model.config().vocab_size.min(vocab);
                Some(Sequence::new(&draft.model, positions, limit, &buffers.proposals)?)
            }
        };
        let parallel = u32::from(options.method == Method::Pard);
        let params = RoundParams { drafts: options.drafts as u32, mask, parallel, pass_index: 0, rows: 0 };
        Ok(Decoder {
            readback: Readback::new(&device, buffers.record.bytes())?,
            accept: Accept::new(&device, params, buffers.bound())?,
            device,
            target: target_sequence,
            draft,
            mask,
            options,
            buffers,
            inputs: HashMap::new(),
            session: Session::default(),
            tokens: Vec::new(),
            statistics: Statistics::default(),
        })
    }

    /// The cache rows that a context of `context` tokens takes: a round looks at most K + 1 rows past the committed
    /// tokens, and a draft's window is 2 K rows.
    pub fn positions(context: usize) -> usize {
        context + 2 * MOST_DRAFTS
    }

    /// How it works: AR if K is 0, whatever was asked for.
    pub fn options(&self) -> &DecoderOptions {
        &self.options
    }

    /// Compiles the kernels of every round there can be, by running them on token 0. They are compiled on first use
    /// otherwise, which no measurement wants. The decoder has to be started anew.
    ///
    /// Errors: [`Error::Gpu`] if a kernel does not compile; as [`Device::check`].
    pub fn warm_up(&mut self) -> Result<()> {
        self.tokens.clear();
        let drafts = self.options.drafts;
        let (draft_rows, outputs) = match self.options.method {
            Method::Ar => (0..=0, 0),
            Method::Vsd => (1..=2, 1),
            Method::Pard => (drafts..=2 * drafts, drafts),
        };
        if let Some(draft) = &self.draft {
            draft.run(Role::Prompt, &[0], 0, 0)?;
            for rows in draft_rows {
                draft.run(Role::Round, &vec![0; rows], 0, outputs)?;
            }
        }
        self.target.run(Role::Prompt, &[0], 0, 0)?;
        self.target.run(Role::Round, &vec![0; drafts + 1], 0, drafts + 1)?;
        self.device.wait()
    }

    /// Forgets what came before and reads `prompt`: all of it but the last token, which is a row of the first round.
    /// Stops early if `keep_going` says so; the decoder then has to be started anew.
    ///
    /// Errors: [`Error::EmptyPrompt`], [`Error::ContextFull`] if no token could follow, [`Error::TokenRange`].
    pub fn start(&mut self, prompt: &[u32], keep_going: &dyn Fn() -> bool) -> Result<()> {
        let Some((&last, known)) = prompt.split_last() else { return Err(Error::EmptyPrompt) };
        if prompt.len() >= self.options.context {
            return Err(Error::ContextFull { tokens: prompt.len(), context: self.options.context });
        }
        let vocab = self.target.model().config().vocab_size;
        if last as usize >= vocab {
            return Err(Error::TokenRange { what: "token", id: last, vocab });
        }
        let begin = Instant::now();
        let rows = known.len() as u32;
        self.session = Session { tokens: prompt.len() as u32, target_rows: rows, draft_rows: rows };
        self.buffers.session.write(&self.device, 0, &[self.session]);
        self.buffers.tokens.write(&self.device, 0, prompt);
        self.target.prefill(known, 0, keep_going)?;
        if let Some(draft) = &self.draft
            && keep_going()
        {
            draft.prefill(known, 0, keep_going)?;
        }
        self.device.wait()?;
        self.tokens = prompt.to_vec();
        self.statistics = Statistics { prompt_tokens: prompt.len(), prefill: begin.elapsed(), ..Statistics::default() };
        Ok(())
    }

    /// Drafts, verifies and commits one round; returns the 1..=K+1 tokens it added.
    ///
    /// Errors: [`Error::EmptyPrompt`] before [`Decoder::start`], [`Error::ContextFull`] once the context is;
    /// [`Error::DeviceLost`].
    pub fn round(&mut self) -> Result<&[u32]> {
        if self.tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        if self.tokens.len() >= self.options.context {
            return Err(Error::ContextFull { tokens: self.tokens.len(), context: self.options.context });
        }
        let begin = Instant::now();
        self.prepare()?;
        Pass::submit(&self.device, Some((&self.buffers.record, &self.readback)), |pass| {
            self.propose(pass)?; // d1 .. dK: one draft pass (PARD), K of them (VSD), or none (AR)
            self.verify(pass)?; // t0 .. tK: one target pass
            self.accept.encode(pass); // commit what agrees, and the target's own next
            Ok(())
        })?;
        let committed = self.commit()?;
        self.statistics.count(self.options.drafts, committed, begin.elapsed());
        Ok(&self.tokens[self.tokens.len() - committed..])
    }

    /// Committed tokens, the prompt's included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What the device knows of the sequence's length and its caches.
    pub fn session(&self) -> Session {
        self.session
    }

    /// The session as the device has it, which [`Decoder::session`] follows. Waits for the device.
    ///
    /// Errors: as [`Device::check`].
    pub fn device_session(&self) -> Result<Session> {
        Ok(self.buffers.session.read(&self.device, 0, 1)?[0])
    }

    /// Counts and times since [`Decoder::start`].
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// What the last round proposed, accepted or not: d1 .. dK.
    ///
    /// Errors: as [`Device::check`].
    pub fn proposals(&self) -> Result<Vec<u32>> {
        self.buffers.proposals.read(&self.device, 0, self.options.drafts)
    }

    /// The logits of the last round's verified rows, `[K + 1, vocab]`.
    ///
    /// Errors: as [`Device::check`].
    pub fn logits(&self) -> Result<Vec<f32>> {
        self.target.logits(self.options.drafts + 1)
    }

    /// Records the draft's passes.
    fn propose(&self, pass: &mut Pass) -> Result<()> {
        let Some(draft) = &self.draft else { return Ok(()) };
        for (params, outputs) in self.draft_passes() {
            let start = match params.pass_index {
                0 => self.session.draft_rows,
                index => self.session.tokens - 1 + index,
            };
            self.inputs[&(Whose::Draft, params)].encode(pass);
            draft.forward(pass, Role::Round, params.rows as usize, (start + params.rows) as usize)?;
            draft.choose(pass, outputs)?;
        }
        Ok(())
    }

    /// Records the target's pass over the newest committed token and the proposals.
    fn verify(&self, pass: &mut Pass) -> Result<()> {
        let params = self.verify_params();
        self.inputs[&(Whose::Target, params)].encode(pass);
        let rows = params.rows as usize;
        self.target.forward(pass, Role::Round, rows, self.session.target_rows as usize + rows)?;
        self.target.choose(pass, self.options.drafts + 1)
    }

    /// Reads back what the round committed and follows the device's bookkeeping.
    fn commit(&mut self) -> Result<usize> {
        let record: Vec<u32> = self.readback.read(&self.device, 2 + self.options.drafts)?;
        let (committed, drafts) = (record[0] as usize, self.options.drafts);
        if committed == 0 || committed > drafts + 1 {
            return Err(Error::Gpu {
                what: "round".to_owned(),
                reason: format!("the device reports {committed} tokens for a draft of {drafts}"),
            });
        }
        self.tokens.extend_from_slice(&record[1..=committed]);
        let known = self.session.tokens;
        self.session.tokens = known + record[0];
        self.session.target_rows = self.session.tokens - 1;
        self.session.draft_rows = match self.options.method {
            Method::Pard => known,
            Method::Vsd | Method::Ar => (known + (drafts as u32).max(1) - 1).min(self.session.target_rows),
        };
        Ok(committed)
    }

    /// The round's draft passes, and how many proposals each makes. Rows are exact: surplus ones cost time.
    fn draft_passes(&self) -> Vec<(RoundParams, usize)> {
        let drafts = self.options.drafts;
        let unseen = self.session.tokens - self.session.draft_rows;
        let params = RoundParams { drafts: drafts as u32, mask: self.mask, parallel: 0, pass_index: 0, rows: unseen };
        match self.options.method {
            Method::Ar => vec![],
            Method::Pard => vec![(RoundParams { parallel: 1, rows: unseen + drafts as u32 - 1, ..params }, drafts)],
            Method::Vsd => {
                let later = |pass_index| (RoundParams { pass_index, rows: 1, ..params }, 1);
                [(params, 1)].into_iter().chain((1..drafts as u32).map(later)).collect()
            }
        }
    }

    fn verify_params(&self) -> RoundParams {
        let drafts = self.options.drafts as u32;
        let unseen = self.session.tokens - self.session.target_rows;
        RoundParams { drafts, mask: 0, parallel: 0, pass_index: 0, rows: unseen + drafts }
    }

    /// Binds the bookkeeping kernels that the next round needs.
    fn prepare(&mut self) -> Result<()> {
        let mut needed = vec![(Whose::Target, self.verify_params())];
        needed.extend(self.draft_passes().into_iter().map(|(params, _)| (Whose::Draft, params)));
        for key in needed {
            if self.inputs.contains_key(&key) {
                continue;
            }
            let (whose, params) = key;
            let sequence = match (whose, &self.draft) {
                (Whose::Draft, Some(draft)) => draft,
                _ => &self.target,
            };
            let made = Inputs::new(&self.device, whose, params, self.buffers.bound(), sequence.step(), sequence.ids())?;
            self.inputs.insert(key, made);
        }
        Ok(())
    }
}
