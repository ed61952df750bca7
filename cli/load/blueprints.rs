//! Placement of models on devices, and the memory they need there, known before anything is uploaded.

use pard::Result;
use pard::decoding::cache_positions;
use pard::low_level::forward::ModelRunner;
use pard::low_level::gpu::{Device, KernelPlan};
use pard::model::{MemoryEstimate, MemoryPlan};

use crate::args::ModelArguments;

/// The devices of target and draft.
pub struct Placement {
    pub device: Device,
    pub plan: KernelPlan,
    /// The draft's, if it is another.
    pub draft: Option<(Device, KernelPlan)>,
}

impl Placement {
    /// Opens the draft's device, if there is a draft and it has one of its own.
    pub fn open(device: &Device, arguments: &ModelArguments, has_draft: bool) -> Result<Placement> {
        let options = arguments.memory.load_options();
        let other = if has_draft { arguments.open_draft_device(device)? } else { device.clone() };
        let draft = match other.is_same(device) {
            true => None,
            false => Some((other.clone(), options.plan(&other)?)),
        };
        Ok(Placement { device: device.clone(), plan: options.plan(device)?, draft })
    }

    /// The device that the draft goes to.
    pub fn draft_device(&self) -> &Device {
        self.draft.as_ref().map_or(&self.device, |(device, _)| device)
    }

    fn draft_plan(&self) -> &KernelPlan {
        self.draft.as_ref().map_or(&self.plan, |(_, plan)| plan)
    }
}

/// Memory plans of the models.
pub struct Blueprints {
    pub target: MemoryPlan,
    /// The draft, if it is another model.
    pub draft: Option<MemoryPlan>,
    pub drafts_for_itself: bool,
}

impl Blueprints {
    /// Checks that no cache for `context` tokens is too large for a kernel.
    ///
    /// # Errors
    ///
    /// [`pard::Error::Limit`].
    pub fn check_bindings(&self, sites: &Placement, context: usize) -> Result<()> {
        let check = |device: &Device, plan: &KernelPlan, model: &MemoryPlan| {
            ModelRunner::check(device, plan, model.config(), 1, cache_positions(context))
        };
        check(&sites.device, &sites.plan, &self.target)?;
        self.drafter().map_or(Ok(()), |draft| check(sites.draft_device(), sites.draft_plan(), draft))
    }

    /// Refuses what surely finds no room on the target's device, of which `limit` bytes may be taken, or on the draft's.
    ///
    /// # Errors
    ///
    /// [`pard::Error::DoesNotFit`].
    pub fn check_memory(&self, sites: &Placement, context: usize, limit: Option<u64>) -> Result<()> {
        let hint = match self.draft {
            Some(_) => "a shorter context (-c), fewer bits (--quantize q4_k, --cache) or a smaller draft (-d)",
            None => "a shorter context (-c), fewer bits (--quantize q4_k, --cache) or a smaller model",
        };
        self.need(sites, context).check(&sites.device, limit, hint)?;
        match (&sites.draft, self.draft_need(sites, context)) {
            (Some((device, _)), Some(need)) => need.check(device, None, hint),
            _ => Ok(()),
        }
    }

    /// The model that drafts.
    fn drafter(&self) -> Option<&MemoryPlan> {
        self.draft.as_ref().or(Some(&self.target).filter(|_| self.drafts_for_itself))
    }

    /// Memory that the target needs with a context of `context` tokens.
    pub fn target_need(&self, sites: &Placement, context: usize) -> MemoryEstimate {
        self.target.need(&sites.device, &sites.plan, cache_positions(context))
    }

    /// Memory that the draft needs, if there is one, on the target's device or its own. A target that drafts for itself has
    /// its weights once on a device; tensors that a draft shares with a target on another device are copied.
    pub fn draft_need(&self, sites: &Placement, context: usize) -> Option<MemoryEstimate> {
        let (device, plan, positions) = (sites.draft_device(), sites.draft_plan(), cache_positions(context));
        let of_sequence = self.drafter()?.sequence_need(device, plan, positions);
        let is_elsewhere = sites.draft.is_some();
        let weights = match &self.draft {
            Some(draft) if is_elsewhere => draft.weight_bytes(plan) + draft.copy_bytes(plan, &self.target),
            Some(draft) => draft.weight_bytes(plan),
            None if is_elsewhere => self.target.weight_bytes(plan),
            None => 0,
        };
        Some(MemoryEstimate { weights, ..of_sequence })
    }

    /// Memory needed on the target's device.
    pub fn need(&self, sites: &Placement, context: usize) -> MemoryEstimate {
        let draft = self.draft_need(sites, context).filter(|_| sites.draft.is_none());
        self.target_need(sites, context) + draft.unwrap_or_default()
    }
}
