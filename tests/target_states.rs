//! Drafts that read hidden states of their target (PARD-2's target-dependent mode): they propose what
//! candle's forward pass of the same formula proposes, alone and with others, whatever was read and dropped before; they
//! learn by the right gradients; and the text stays the target's.

use std::sync::Arc;

use candle_core::Device::Cpu;
use candle_core::{DType, Tensor};
use fastrand::Rng;
use pard::Error;
use pard::checkpoint::config::{Config, HiddenState, StateForm, TargetLayers};
use pard::checkpoint::hugging_face::{FORMER_PROJECTION, TARGET_BIAS, TARGET_PROJECTION};
use pard::decoding::{Costs, Draft, DraftLength, Engine, EngineOptions, Method, Sequence, SequenceOptions};
use pard::low_level::gpu::{CacheFormat, KernelPlan};
use pard::low_level::inspect::Inspect;
use pard::low_level::training::{CodRetention, Network, NetworkOptions, PackedRows};
use pard::model::{PassCost, Weights};

use crate::decoding::{CONTEXT, decode, decoder, lengths};
use crate::support::gpu::{device, plan, upload};
use crate::support::memory::Memory;
use crate::support::random::Random;
use crate::support::shared_draft::SharedDraft;
use crate::support::tiny_model::{Recipe, Stored};
use crate::training::candle::{self, Row, Tensors as CandleTensors};
use crate::training::gradients::{by_candle, compare, recipe_of, samples};
use crate::training::teacher::weights;

const MASK: u32 = 5;

/// States of targets of three layers that are read: the normed one, that after one layer, that after two.
const STATES: [i32; 3] = [-1, 1, -2];
/// Those of drafts of the form before: outputs of layers.
const FORMER: [i32; 2] = [0, 2];

/// A target of three layers, and a draft of other layers that reads it.
pub struct Pair {
    target: Recipe,
    draft: SharedDraft,
}

impl Pair {
    pub fn of(target: Recipe) -> Pair {
        Pair::in_form(target, StateForm::Pard2)
    }

    fn in_form(target: Recipe, form: StateForm) -> Pair {
        let target = Recipe { config: Config { layers: 3, ..target.config.clone() }, ..target };
        let mut layers = Recipe { seed: target.seed + 1, ..target.clone() };
        layers.config.layers = 2;
        let mut draft = SharedDraft::new(&layers, MASK, None);
        let hidden = target.config.hidden_size;
        let (layers, name, scale) = match form {
            StateForm::Pard2 => (STATES.to_vec(), TARGET_PROJECTION, 0.5),
            StateForm::Normalised => (FORMER.to_vec(), FORMER_PROJECTION, 1.0),
        };
        // Every other family's has a bias.
        let bias = form == StateForm::Pard2 && target.seed.is_multiple_of(2);
        if bias {
            let row = Stored { shape: vec![hidden], ..projection(target.seed + 3, hidden, 1) };
            draft.tensors.insert(TARGET_BIAS.to_owned(), row);
        }
        draft.tensors.insert(name.to_owned(), projection(target.seed + 2, hidden, layers.len() * hidden));
        draft.config.target_layers = Some(TargetLayers { layers, hidden_size: hidden, scale, bias, form });
        Pair { target, draft }
    }

    /// Both on the device.
    pub fn upload(&self, plan: &KernelPlan) -> (Arc<Weights>, Draft) {
        let target = upload(&self.target, plan);
        let model = self.draft.upload(&target, plan).expect("a draft");
        let draft = Draft::from_weights("reader", model, Some(MASK));
        (target, draft)
    }

    /// The draft's proposals after `tokens` by candle, each with the gap between its logit and the next best.
    fn proposals(&self, tokens: &[u32], drafts: usize) -> Vec<(u32, f32)> {
        let of_target = weights(&self.target.tensors());
        let mut of_draft = weights(&self.draft.tensors);
        for (name, tensor) in &of_target {
            if name.starts_with("model.embed") || name.starts_with("lm_head") {
                of_draft.insert(name.clone(), tensor.clone());
            }
        }
        let causal = |ids: Vec<u32>| -> Vec<Row> {
            let row = |(position, id)| Row { id, position, label: None, sees: (0..=position).collect() };
            ids.into_iter().enumerate().map(row).collect()
        };
        let known = tokens.len();
        let rows = causal(tokens.iter().copied().chain(std::iter::repeat_n(MASK, drafts - 1)).collect());
        let read = self.draft.config.target_layers.clone().expect("it reads states");
        if let Some(former) = of_draft.get(FORMER_PROJECTION).cloned() {
            of_draft.insert(TARGET_PROJECTION.to_owned(), former);
        }
        // Masks repeat what the last token reads, or read nothing.
        let source = |row: &Row| match read.form {
            StateForm::Pard2 => row.position.min(known - 1),
            StateForm::Normalised if row.position < known => row.position,
            StateForm::Normalised => 0,
        };
        let mut logits = || -> candle_core::Result<Vec<Vec<f32>>> {
            let target_rows = causal(tokens[..known - 1].to_vec());
            let states = states(&self.target.config, &of_target, &target_rows, &read)?;
            let states = recalled(&states, rows.iter().map(source))?;
            // The mask has a row of its own, whatever token has its id.
            let id = Tensor::new(&[MASK], &Cpu)?;
            let embeddings = of_draft["model.embed_tokens.weight"].clone();
            let own = of_draft["pard.mask_embedding"].unsqueeze(0)?;
            let difference = (own - embeddings.index_select(&id, 0)?)?;
            let with_mask = embeddings.index_add(&id, &difference, 0)?;
            let config = Config { tied_head: false, ..self.draft.config.clone() };
            let head = if self.draft.config.tied_head { &embeddings } else { &of_draft["lm_head.weight"] };
            let head = head.clone();
            of_draft.insert("lm_head.weight".to_owned(), head);
            of_draft.insert("model.embed_tokens.weight".to_owned(), with_mask);
            candle::logits(&config, &of_draft, &rows, Some(&states))?.to_vec2()
        };
        let logits = logits().expect("candle's forward pass");
        logits[known - 1..].iter().map(|row| best(row)).collect()
    }
}

/// The states of `rows` that `read` names, times its factor, `[rows, layers · hidden]`.
fn states(config: &Config, weights: &CandleTensors, rows: &[Row], read: &TargetLayers) -> candle_core::Result<Tensor> {
    let ones = Tensor::ones(config.hidden_size, DType::F32, &Cpu)?;
    let mut after = vec![candle::embedded(weights, rows)?];
    candle::through_layers(config, weights, rows, after[0].clone(), &mut |_, hidden| {
        after.push(hidden.clone());
        Ok(())
    })?;
    let state = |state: HiddenState| match (state, read.form) {
        (HiddenState::Normed, _) => {
            candle::rms_norm(&after[config.layers], &weights["model.norm.weight"], config.norm_epsilon)
        }
        (HiddenState::After(layers), StateForm::Pard2) => Ok(after[layers].clone()),
        (HiddenState::After(layers), StateForm::Normalised) => {
            candle::rms_norm(&after[layers], &ones, config.norm_epsilon)
        }
    };
    let states = read.states(config.layers).expect("states of this target");
    let states = states.into_iter().map(state).collect::<candle_core::Result<Vec<_>>>()?;
    Tensor::cat(&states, 1)? * f64::from(read.scale)
}

/// What rows read of `states`, which holds a row per token in `[positions, width]`: that of the token before position `p`
/// for each `p` of `sources`, and zeros for position 0.
fn recalled(states: &Tensor, sources: impl Iterator<Item = usize>) -> candle_core::Result<Tensor> {
    let nothing = Tensor::zeros((1, states.dim(1)?), DType::F32, &Cpu)?;
    let sources: Vec<u32> = sources.map(|position| position as u32).collect();
    Tensor::cat(&[&nothing, states], 0)?.index_select(&Tensor::new(sources, &Cpu)?, 0)
}

/// The likeliest token, and by how much.
fn best(logits: &[f32]) -> (u32, f32) {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|&one, &other| logits[other as usize].total_cmp(&logits[one as usize]));
    (order[0], logits[order[0] as usize] - logits[order[1] as usize])
}

/// Large enough for what is read to decide what is proposed.
fn projection(seed: u64, hidden: usize, width: usize) -> Stored {
    let values = Random::new(seed).normals(hidden * width, 2.0 / (width as f32).sqrt());
    let values = values.into_iter().map(|value| half::bf16::from_f32(value).to_f32()).collect();
    Stored { shape: vec![hidden, width], values }
}

/// Compares a round's proposals with candle's; near ties are passed over. Gives how many were compared.
fn check(context: &str, actual: &[u32], expected: &[(u32, f32)]) -> usize {
    let clear = actual.iter().zip(expected).filter(|(_, (_, margin))| *margin > 0.05);
    clear.map(|(actual, (expected, margin))| assert_eq!(actual, expected, "{context}, by {margin}")).count()
}

#[test]
fn it_proposes_what_candle_proposes_from_the_same_states() {
    let mut compared = 0;
    let recipes = Recipe::each_family(41);
    let former = recipes[0].clone();
    let pairs = recipes.into_iter().map(Pair::of).chain([Pair::in_form(former, StateForm::Normalised)]);
    for pair in pairs {
        let (target, draft) = pair.upload(&plan(CacheFormat::F32));
        let prompt = Random::new(42).indices(21, pair.target.config.vocab_size);
        for drafts in [1, 4] {
            let mut decoder = decoder(&target, &draft, Method::Pard, drafts);
            decoder.start(&prompt).expect("start");
            for round in 0..4 {
                let before = decoder.tokens().to_vec();
                decoder.round().expect("round");
                let context = format!("{:?}, K = {drafts}, round {round}", pair.target.config.family);
                let proposals = decoder.proposals().expect("proposals");
                compared += check(&context, &proposals, &pair.proposals(&before, drafts));
            }
            // States kept of the prefix serve another text that begins alike.
            let other = [&prompt[..13], &Random::new(43).indices(9, 200)].concat();
            decoder.resume(&other).expect("another text");
            decoder.round().expect("round");
            let proposals = decoder.proposals().expect("proposals");
            compared += check("resumed", &proposals, &pair.proposals(&other, drafts));
        }
    }
    assert!(compared > 45, "{compared} proposals were no near ties");
}

#[test]
fn it_proposes_the_same_in_passes_with_others() {
    let pair = Pair::of(Recipe::llama(51));
    let (target, draft) = pair.upload(&plan(CacheFormat::F32));
    let pool = Engine::from_weights(&target, Some(&draft), EngineOptions::default().context(CONTEXT).sequences(3))
        .expect("a pool");
    let mut decoders: Vec<Sequence> = (0..3)
        .map(|seed| {
            let options = SequenceOptions::default()
                .method(Method::Pard)
                .drafts(DraftLength::Fixed(3))
                .context(CONTEXT)
                .run_ahead(Some(false));
            let mut decoder = pool.add(options).expect("a decoder");
            let free = PassCost::from_points(&[(1, 1.0), (32, 1.01)]);
            decoder.set_costs(Costs { target: free, draft: PassCost::from_points(&[(1, 0.01), (32, 0.02)]) });
            let prompt = Random::new(52 + seed).indices(6 + 5 * seed as usize, pair.target.config.vocab_size);
            decoder.start(&prompt).expect("start");
            decoder
        })
        .collect();
    let mut compared = 0;
    let mut shared = 0;
    for round in 0..5 {
        let before: Vec<Vec<u32>> = decoders.iter().map(|decoder| decoder.tokens().to_vec()).collect();
        let passes = pool.step(&mut decoders.iter_mut().collect::<Vec<_>>()).expect("rounds");
        shared += usize::from(passes.len() < decoders.len());
        for (index, decoder) in decoders.iter().enumerate() {
            let proposals = decoder.proposals().expect("proposals");
            if proposals.is_empty() {
                continue;
            }
            let expected = pair.proposals(&before[index], proposals.len());
            compared += check(&format!("decoder {index}, round {round}"), &proposals, &expected);
        }
    }
    assert!(shared > 2 && compared > 15, "{shared} rounds shared a pass, {compared} proposals were no near ties");
}

#[test]
fn every_method_writes_the_targets_text_with_it() {
    for recipe in Recipe::each_family(61) {
        let pair = Pair::of(recipe);
        let (target, draft) = pair.upload(&plan(CacheFormat::F16));
        let prompt = Random::new(62).indices(17, pair.target.config.vocab_size);
        let alone = decode(&mut decoder(&target, &draft, Method::Ar, 0), &prompt, 40);
        for drafts in lengths() {
            for method in [Method::Vsd, Method::Pard] {
                let tokens = decode(&mut decoder(&target, &draft, method, drafts), &prompt, 40);
                assert_eq!(tokens, alone, "{:?}, {} with K = {drafts}", pair.target.config.family, method.name());
            }
        }
    }
}

/// The gradients of all it is made of, the projection's among them.
#[test]
fn its_gradients_are_those_of_candles_autograd() {
    for recipe in Recipe::each_family(71) {
        let pair = Pair::of(recipe);
        let plan = plan(CacheFormat::F32);
        let target = upload(&pair.target, &plan);
        let config = Config { layers: 2, ..pair.target.config.clone() };
        let recipe = Recipe { seed: 72, config: config.clone(), duplicate_head: false, ..pair.target.clone() };
        let mut tensors = recipe.tensors();
        let read = TargetLayers {
            layers: STATES.to_vec(),
            hidden_size: config.hidden_size,
            scale: TargetLayers::SCALE,
            bias: false,
            form: StateForm::Pard2,
        };
        tensors.insert(TARGET_PROJECTION.to_owned(), projection(73, config.hidden_size, read.width()));
        let mask = config.vocab_size as u32 - 1;
        let retention = CodRetention { segments: 4, ratio: 0.7, least: 0.2 };
        let parts: Vec<PackedRows> = samples(&mut Random::new(74), config.vocab_size)
            .iter()
            .map(|sample| PackedRows::of(sample, &retention, mask, &mut Rng::with_seed(75)))
            .collect();
        let mut packed = PackedRows::default();
        parts.iter().for_each(|part| packed.append(part.clone()));
        let network = Network::new(
            device(),
            &plan,
            &NetworkOptions {
                teacher: Some(&target),
                target_layers: &STATES,
                ..recipe_of(&config, &Memory::new(tensors.clone()), mask, packed.rows.len() + 5)
            },
        )
        .expect("a network");
        let losses = network.learn(&packed, 1.0).expect("a pass");
        let of_target = weights(&pair.target.tensors());
        let read_by = |part: &PackedRows| -> candle_core::Result<Tensor> {
            // A sample's tokens come first.
            let tokens = part.segments.iter().filter(|&&segment| segment == 0).count();
            let states = states(&pair.target.config, &of_target, &Row::all(part)[..tokens], &read)?;
            // Masks read what the token before their chain does.
            let source = |row: usize| match part.segments[row] {
                0 => row,
                _ => part.rows[row].context_end as usize - 1,
            };
            recalled(&states, (0..part.rows.len()).map(source))
        };
        let states = parts.iter().map(read_by).collect::<candle_core::Result<Vec<_>>>();
        let states = states.and_then(|states| Tensor::cat(&states, 0)).expect("candle's states");
        let (loss, expected) = by_candle(&tensors, |weights| {
            candle::loss(&config, weights, &Row::all(&packed), Some(&states)).expect("candle's forward pass")
        });
        let ours: f32 = losses.iter().map(|row| row.cross_entropy).sum();
        assert!((ours - loss).abs() <= 1e-3 * loss, "{:?}: loss {ours}, candle's {loss}", config.family);
        compare(&network, &plan, &expected, 2e-3, &format!("{:?}", config.family));
    }
}

#[test]
fn what_cannot_be_read_is_refused_or_left_out_with_a_notice() {
    let plan = plan(CacheFormat::F16);
    let changed = |change: &dyn Fn(&mut TargetLayers)| {
        let mut pair = Pair::of(Recipe::llama(81));
        change(pair.draft.config.target_layers.as_mut().expect("a reader"));
        pair.draft.upload(&upload(&pair.target, &plan), &plan)
    };
    for layers in [vec![1, 4], vec![-5, 1]] {
        let draft = changed(&|target| target.layers.clone_from(&layers)).expect("it drafts without states");
        assert!(draft.config().target_layers.is_none());
        assert!(draft.notices().iter().any(|notice| notice.contains("pard2_target_layers")), "{:?}", draft.notices());
    }
    let draft = changed(&|target| target.hidden_size += 8).expect("it drafts without states");
    assert!(draft.notices().iter().any(|notice| notice.contains("pard2_target_dim")), "{:?}", draft.notices());
    let error = changed(&|target| target.layers.clear()).map(drop);
    assert!(matches!(&error, Err(Error::Config { field, .. }) if field == "pard2_target_layers"), "{error:?}");
    for name in [TARGET_PROJECTION, TARGET_BIAS] {
        let mut lacking = Pair::of(Recipe::llama(82));
        lacking.draft.tensors.remove(name).expect("it was there");
        let error = lacking.draft.upload(&upload(&lacking.target, &plan), &plan).map(drop);
        assert!(matches!(&error, Err(Error::MissingTensor { name: named, .. }) if named == name), "{error:?}");
    }
}
