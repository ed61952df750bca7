//! Decoders that share a model's caches, each with a slot of them, and whose rows go through the model in one pass: the
//! weights are read once for all of them. No text depends on the other decoders, nor on which rounds were run together.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::decoder::Decoder;
use super::draft::Draft;
use super::joining::{Way, choose_ways};
use super::options::{DecoderOptions, Method};
use super::round::choices;
use crate::error::{Error, Result};
use crate::gpu::{Device, Pass};
use crate::model::{Hook, KvCachePool, Weights};
use crate::ops::{MAX_ROWS, check_row_invariance};

/// Room for several decoders over one target, and over one draft if there is one.
///
/// ```no_run
/// # use pard_engine::{DecoderOptions, Model, Result};
/// # use pard_engine::decoding::Pool;
/// # fn answers(model: &Model, prompts: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
/// let options = DecoderOptions { context: 2048, ..DecoderOptions::default() };
/// let pool = Pool::new(&model.weights, None, options.context, prompts.len())?;
/// let mut decoders = Vec::new();
/// for prompt in prompts {
///     let mut decoder = pool.decoder(options.clone())?;
///     decoder.start(prompt, &|| true)?;
///     decoders.push(decoder);
/// }
/// for _ in 0..100 {
///     pool.round(&mut decoders.iter_mut().collect::<Vec<_>>())?;
/// }
/// # Ok(decoders.iter().map(|decoder| decoder.tokens().to_vec()).collect())
/// # }
/// ```
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// State shared by the decoders of a pool.
struct Shared {
    device: Device,
    context: usize,
    most: usize,
    target: KvCachePool,
    draft: Option<Draft>,
    /// The draft's caches, once a decoder asked for them. Locked while they are made.
    drafting: OnceLock<KvCachePool>,
    /// Set for each slot that has a decoder. Locked while caches grow.
    taken: Mutex<Vec<bool>>,
}

/// A decoder's slot, which is free again once it is dropped.
pub(super) struct CacheSlot {
    shared: Arc<Shared>,
    /// Its index in the caches of target and draft.
    pub slot: usize,
    /// Set if it has a draft.
    drafts: bool,
}

impl Pool {
    /// A pool of at most `most` decoders for contexts of `context` tokens. Each that is made takes its memory then, the
    /// first one's is taken here.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if the context is out of range, or `most` is 0; [`Error::Gpu`] if this driver's rounding
    /// depends on the number of rows; [`Error::Limit`] or [`Error::OutOfMemory`] if the caches do not fit.
    pub fn new(target: &Arc<Weights>, draft: Option<&Draft>, context: usize, most: usize) -> Result<Pool> {
        DecoderOptions { context, ..DecoderOptions::default() }.check()?;
        if most == 0 {
            return Err(Error::Option { option: "parallel", reason: "a pool has 1 decoder at least".to_owned() });
        }
        let device = target.device().clone();
        if most > 1 {
            check_row_invariance(&device, target.plan(), most.min(MAX_ROWS))?;
        }
        let target_choices = choices(&device, "choices")?;
        let target = KvCachePool::new(target, Decoder::positions(context), target.config().vocab_size, target_choices)?;
        let shared = Shared {
            device,
            context,
            most,
            target,
            draft: draft.cloned(),
            drafting: OnceLock::new(),
            taken: Mutex::default(),
        };
        Ok(Pool { shared: Arc::new(shared) })
    }

    /// A decoder with a slot of its own, as long as it lives.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if an option is out of range, the context is longer than the pool's, the method lacks its draft,
    /// or all slots have a decoder; [`Error::NoMaskToken`]; [`Error::Limit`] or [`Error::OutOfMemory`] if there is no
    /// room for one more, in which case the existing ones go on.
    pub fn decoder(&self, options: DecoderOptions) -> Result<Decoder> {
        let options = options.checked()?;
        let (shared, target) = (&self.shared, self.shared.target.alone().model());
        options.sampling.check_tokens(target.config().vocab_size)?;
        if options.context > shared.context {
            let reason = format!("{} tokens are more than the pool's {}", options.context, shared.context);
            return Err(Error::Option { option: "context", reason });
        }
        if options.method != Method::Ar {
            check_row_invariance(&shared.device, target.plan(), options.drafts.most() + 1)?;
        }
        let mut mask = 0;
        let drafts = match (options.method, &shared.draft) {
            (Method::Ar | Method::Ngram, _) => false,
            (method, None) => {
                let reason = format!("the method {} needs a draft model", method.name());
                return Err(Error::Option { option: "draft", reason });
            }
            (method, Some(draft)) => {
                if !draft.model.device().is_same(&shared.device) {
                    options.check_crossing()?;
                    if draft.model.config().target_layers.is_some() {
                        let reason =
                            format!("{} reads what the target makes of tokens, and has to be with it", draft.name);
                        return Err(Error::Option { option: "draft-device", reason });
                    }
                }
                if method == Method::Pard {
                    mask = draft.mask.ok_or_else(|| Error::NoMaskToken { draft: draft.name.clone() })?;
                }
                true
            }
        };
        Decoder::seated(Shared::seat(shared, drafts)?, mask, options)
    }

    /// Lets each of `decoders`, which must be this pool's, go on by a round: it commits at least a token, and
    /// [`Decoder::last_tokens`] are those. Gives the rows of each pass of the target that this took.
    ///
    /// One row of each decoder goes through the target in one pass, and as many proposals with them as pay: those of
    /// n-grams, and those of a parallel draft, which makes them for all decoders in one pass as well. Decoders may also
    /// have rounds of their own, one after the other. The choice with the highest estimate of total tokens per second is
    /// taken, from the costs of passes, as [`Decoder::set_costs`] says, and the acceptance rates; where costs are not
    /// known, one row of each is taken. No text depends on it: decoders whose proposals are accepted by
    /// [`super::AcceptanceRule::Rejection`] have rounds of their own.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::round`], before anything is done, if one of them cannot go on; [`Error::Option`] if
    /// one is not of this pool; as [`Device::check`].
    pub fn round(&self, decoders: &mut [&mut Decoder]) -> Result<Vec<usize>> {
        for decoder in decoders.iter() {
            decoder.check_room()?;
            if !Arc::ptr_eq(&decoder.seat().shared, &self.shared) {
                let reason = "a decoder is of another pool".to_owned();
                return Err(Error::Option { option: "decoders", reason });
            }
        }
        let ways = choose_ways(decoders);
        let (mut passes, mut together) = (Vec::new(), Vec::new());
        for (decoder, way) in decoders.iter_mut().zip(ways) {
            match way {
                Way::Alone => {
                    decoder.round()?;
                }
                // It joins the others with the next round.
                Way::Together(_) if decoder.is_ahead() => decoder.land_ahead()?,
                Way::Together(drafts) => {
                    together.push((drafts, &mut **decoder));
                    continue;
                }
            }
            passes.push(decoder.last_round().proposed + 1);
        }
        // Tokens that the host knows come first: see [`Together::give`].
        together.sort_by_key(|(drafts, decoder)| *drafts > 0 && decoder.has_draft());
        for members in together.chunks_mut(MAX_ROWS) {
            passes.push(self.round_together(members)?);
        }
        Ok(passes)
    }

    /// Runs a round of each of `members`, with that many proposals and none in flight, in one pass, and returns its
    /// number of rows.
    fn round_together(&self, members: &mut [(usize, &mut Decoder)]) -> Result<usize> {
        let begin = Instant::now();
        let Shared { device, target, drafting, .. } = &*self.shared;
        let together = target.together()?;
        let (mut rows, mut firsts) = (Vec::new(), Vec::new());
        let (mut draft_rows, mut draft_firsts) = (Vec::new(), Vec::new());
        for (drafts, member) in members.iter_mut() {
            firsts.push(rows.len());
            rows.extend(member.prepare_shared(*drafts)?);
            let mut first_proposing = None;
            if *drafts > 0 && member.has_draft() {
                let (more, first) = member.shared_draft_rows(*drafts);
                first_proposing = Some(draft_rows.len() + first);
                draft_rows.extend(more);
            }
            draft_firsts.push(first_proposing);
        }
        let drafting = match drafting.get().filter(|_| !draft_rows.is_empty()) {
            None => None,
            Some(slots) => Some((slots.together()?, slots.alone())),
        };
        {
            let _turn = target.alone().turn();
            let _draft_turn = drafting.map(|(_, alone)| alone.turn());
            together.place(&rows);
            if let Some((draft, _)) = drafting {
                draft.place(&draft_rows);
            }
            Pass::submit(device, members.iter().map(|(_, member)| member.record()), |pass| {
                if let Some((draft, _)) = drafting {
                    pass.section("draft");
                    let reading: Vec<&Hook> =
                        members.iter().filter_map(|(_, member)| member.read_kept_together()).collect();
                    draft.score(pass, &draft_rows, &reading)?; // d1 .. dK of all
                    for ((drafts, member), first) in members.iter().zip(&draft_firsts) {
                        let Some(first) = *first else { continue };
                        draft.take(pass, first, *drafts);
                        member.finish_proposals(pass, *drafts);
                    }
                }
                pass.section("verify");
                let proposed = members.iter().zip(&firsts).zip(&draft_firsts);
                for (((drafts, member), first), _) in proposed.filter(|(_, draft_first)| draft_first.is_some()) {
                    member.begin_rows(pass, *drafts);
                    together.give(pass, *first, drafts + 1);
                }
                let keeping: Vec<&Hook> = members.iter().filter_map(|(_, member)| member.keep_together()).collect();
                together.score(pass, &rows, &keeping)?; // t0 .. tK of all
                pass.section("accept");
                for ((drafts, member), first) in members.iter().zip(&firsts) {
                    together.take(pass, *first, drafts + 1);
                    member.finish_rows(pass, *drafts);
                }
                Ok(())
            })?;
        }
        for (drafts, member) in members.iter_mut() {
            member.submitted(*drafts);
        }
        for (_, member) in members.iter_mut() {
            member.land_shared(begin)?;
        }
        Ok(rows.len())
    }
}

impl Shared {
    /// Takes a free slot, and sees to it that there are caches for it.
    fn seat(shared: &Arc<Shared>, drafts: bool) -> Result<CacheSlot> {
        let mut taken = shared.taken();
        let slot = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
        if slot >= shared.most {
            let reason = format!("all {} decoders of the pool are taken", shared.most);
            return Err(Error::Option { option: "parallel", reason });
        }
        shared.reserve(&shared.target, slot + 1)?;
        if drafts {
            shared.reserve(shared.drafting()?, slot + 1)?;
        }
        match taken.get_mut(slot) {
            Some(place) => *place = true,
            None => taken.push(true),
        }
        Ok(CacheSlot { shared: shared.clone(), slot, drafts })
    }

    /// Grows caches to `slots` slots at least; twice as many as there were, where there is room, so that they seldom grow.
    fn reserve(&self, caches: &KvCachePool, slots: usize) -> Result<()> {
        let count = caches.count();
        if count >= slots {
            return Ok(());
        }
        match caches.reserve((2 * count).clamp(slots, self.most)) {
            Err(Error::OutOfMemory { .. } | Error::Limit { .. }) => caches.reserve(slots),
            done => done,
        }
    }

    /// The draft's caches. The slots are locked, so that nobody else makes them at the same time.
    fn drafting(&self) -> Result<&KvCachePool> {
        if let (None, Some(draft)) = (self.drafting.get(), &self.draft) {
            // A padding id that the target does not have must not be proposed: it could not be fed.
            let vocab = self.target.alone().model().config().vocab_size;
            let limit = draft.model.config().vocab_size.min(vocab);
            let proposals = choices(draft.model.device(), "proposals")?;
            let slots = KvCachePool::new(&draft.model, Decoder::positions(self.context), limit, proposals)?;
            return Ok(self.drafting.get_or_init(|| slots));
        }
        self.drafting.get().ok_or_else(|| Error::Option { option: "draft", reason: "there is none".to_owned() })
    }

    fn taken(&self) -> MutexGuard<'_, Vec<bool>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheSlot {
    /// The target's caches.
    pub fn target(&self) -> &KvCachePool {
        &self.shared.target
    }

    /// The draft's.
    pub fn draft(&self) -> Option<&KvCachePool> {
        self.shared.drafting.get().filter(|_| self.drafts)
    }
}

impl Drop for CacheSlot {
    fn drop(&mut self) {
        if let Some(taken) = self.shared.taken().get_mut(self.slot) {
            *taken = false;
        }
    }
}
