//! Arguments that several commands share: models, memory, device, decoding, sampling, prompts.

use std::path::Path;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, value_parser};
use pard::Result;
use pard::checkpoint::resolve::DEFAULT_MODEL;
use pard::decoding::{
    AcceptanceRule, DraftLength, MAX_DRAFTS, MAX_TEMPERATURE, Method, NgramOptions, SamplingParams, SequenceOptions,
};
use pard::low_level::gpu::{
    AdapterQuery, CacheFormat, Device, MatmulChoice, QuantisedChoice, Shaders, is_same_adapter,
};
use pard::low_level::ops::WeightFormat;
use pard::model::{LoadOptions, StatesChoice, WeightDtype};

use crate::grammar::GrammarArguments;
use crate::output::Verbosity;
use crate::usage::usage;

/// Options for models, decoding and the end of an answer.
#[derive(Args, Clone)]
pub struct DecodingArguments {
    #[command(flatten)]
    pub models: ModelArguments,
    /// Decoding method; ngram needs no draft [default: pard if the draft has a mask token, else vsd; ar without a draft]
    #[arg(long, value_parser = one_of(&METHODS))]
    pub method: Option<Method>,
    /// Tokens proposed per round: 0 (none) to 16, or `auto`, as many as pay best [default: auto with a draft]
    #[arg(short = 'k', long, value_name = "K|auto", value_parser = drafts, allow_negative_numbers = true)]
    pub draft_len: Option<DraftLength>,
    /// Submit a round before the last one's tokens are known [default: on GPUs]
    #[arg(long, value_name = "on|off", value_parser = one_of(&[("on", true), ("off", false)]))]
    pub run_ahead: Option<bool>,
    /// Tokens of the answer at most [default: 256; in a chat as many as there is room for]
    #[arg(short = 'n', long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub max_tokens: Option<usize>,
    /// Tokens of the answer at least: until then nothing that would end it is chosen, unless --json-schema and the like allow
    /// nothing else, and no --stop is looked for
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub min_tokens: usize,
    /// Tokens that are looked up for n-grams: the most and the fewest of the newest ones
    #[arg(long, value_name = "MOST[,FEWEST]", default_value = "3,1", value_parser = ngram)]
    pub ngram: NgramOptions,
    /// Let n-grams propose in the draft's place in rounds in which they promise more; no round runs ahead then
    #[arg(long)]
    pub with_ngrams: bool,
    #[command(flatten)]
    pub sampling: SamplingArguments,
    /// Accept what a draft proposes where tokens are drawn: by noise that both models draw by, or by the rejection rule of
    /// speculative sampling, which accepts more and lets the text depend on the draft and on K
    #[arg(long, default_value = "noise", value_parser = one_of(&ACCEPTANCES))]
    pub acceptance: AcceptanceRule,
    /// Report how probable the model found each token of the answer, and the N likeliest in its place (0 to 20)
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub logprobs: Option<usize>,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
}

/// Options for formatting a prompt.
#[derive(Args)]
pub struct StyleArguments {
    /// Put the prompt into the model's chat template [default where there is one]
    #[arg(long, conflicts_with = "raw")]
    pub chat: bool,
    /// Continue the prompt as plain text
    #[arg(long, conflicts_with_all = ["system", "thinking"])]
    pub raw: bool,
    /// System message, put before the prompt
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Turn thinking before the answer on or off, if the model's template supports it
    #[arg(long, value_name = "on|off", value_parser = one_of(&[("on", true), ("off", false)]))]
    pub thinking: Option<bool>,
}

/// Sampling options.
#[derive(Args, Clone)]
pub struct SamplingArguments {
    /// Draw tokens from softmax(logits / T); 0 takes the likeliest
    #[arg(short, long, value_name = "T", default_value_t = 0.0, value_parser = temperature, allow_negative_numbers = true)]
    pub temperature: f32,
    /// Names the draws: a seed gives the same text every time, by every method and every K
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = seed, allow_negative_numbers = true)]
    pub seed: u64,
    #[command(flatten)]
    pub logits: LogitArguments,
}

/// Options that say which tokens may be drawn, and how logits are changed first.
#[derive(Args, Clone)]
pub struct LogitArguments {
    /// Draw from the K likeliest tokens only; 0: from all
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = count, allow_negative_numbers = true)]
    pub top_k: usize,
    /// Draw from the likeliest tokens that have this share of the probability; 1: from all
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Draw from tokens at least this share as probable as the likeliest; 0: from all
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    pub min_p: f32,
    /// Divide positive logits of tokens that prompt or answer has, multiply the others; 1: neither
    #[arg(long, value_name = "R", default_value_t = 1.0, allow_negative_numbers = true)]
    pub repetition_penalty: f32,
    /// Take this from the logits of tokens that the answer has
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub presence_penalty: f32,
    /// Take this from the logits of tokens as often as the answer has them
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub frequency_penalty: f32,
    /// Add this to the logit of a token, named by its id; may be given several times
    #[arg(long, value_name = "TOKEN=BIAS", value_parser = token_bias)]
    pub logit_bias: Vec<(u32, f32)>,
    /// Never write these tokens, named by their ids and separated by commas
    #[arg(long, value_name = "TOKEN", value_delimiter = ',', allow_negative_numbers = true)]
    pub ban: Vec<u32>,
    #[command(flatten)]
    pub grammar: GrammarArguments,
}

impl SamplingArguments {
    pub fn options(&self, top_logprobs: Option<usize>) -> SamplingParams {
        self.logits.options(self.temperature, self.seed).top_logprobs(top_logprobs)
    }
}

impl Default for LogitArguments {
    /// Every token may be drawn, and no logit is changed.
    fn default() -> LogitArguments {
        let usual = SamplingParams::default();
        LogitArguments {
            top_k: usual.top_k,
            top_p: usual.top_p,
            min_p: usual.min_p,
            repetition_penalty: usual.repetition_penalty,
            presence_penalty: usual.presence_penalty,
            frequency_penalty: usual.frequency_penalty,
            logit_bias: usual.logit_bias,
            ban: usual.banned,
            grammar: GrammarArguments::default(),
        }
    }
}

impl LogitArguments {
    pub fn options(&self, temperature: f32, seed: u64) -> SamplingParams {
        SamplingParams::default()
            .temperature(temperature)
            .seed(seed)
            .top_k(self.top_k)
            .top_p(self.top_p)
            .min_p(self.min_p)
            .repetition_penalty(self.repetition_penalty)
            .presence_penalty(self.presence_penalty)
            .frequency_penalty(self.frequency_penalty)
            .logit_bias(self.logit_bias.clone())
            .banned(self.ban.clone())
            .grammar(self.grammar.grammar())
    }
}

/// Options for choosing models and their devices.
#[derive(Args, Clone)]
pub struct ModelArguments {
    /// The model: `smollm2`, a folder, a .gguf file, or a repository of the Hugging Face hub (`owner/name[:Q4_K_M]`)
    #[arg(short, long, default_value = DEFAULT_MODEL)]
    pub model: String,
    /// The model that proposes tokens, named likewise, or `auto`: the best one of `pard drafts` that is on this machine
    #[arg(short, long, value_name = "MODEL")]
    pub draft: Option<String>,
    /// The draft's mask token, for PARD; its config.json may name one
    #[arg(long, value_name = "ID", requires = "draft", allow_negative_numbers = true)]
    pub mask_token: Option<u32>,
    #[command(flatten)]
    pub memory: MemoryArguments,
    /// Device memory that models may take, in GiB; what needs more is refused [default: what the adapter has, if that is
    /// known]
    #[arg(long = "memory", value_name = "GIB", value_parser = gibibytes)]
    pub memory_limit: Option<u64>,
    #[command(flatten)]
    pub device: DeviceArguments,
    /// The draft's adapter, named likewise [default: the target's]; tokens then cross between the two in every round
    #[arg(long, value_name = "INDEX|NAME", requires = "draft")]
    pub draft_device: Option<String>,
    /// Let a draft that was made to read hidden states of its target do so (auto), or draft from tokens alone (off)
    #[arg(long, value_name = "auto|off", default_value = "auto", value_parser = one_of(&STATES))]
    pub target_states: StatesChoice,
}

/// Options that determine a model's memory use and kernels.
#[derive(Args, Clone, Default)]
pub struct MemoryArguments {
    /// Tokens that prompt and answer may take together [default: what the model was made for, 4096 at most]
    #[arg(short, long, value_name = "TOKENS", allow_negative_numbers = true, value_parser = value_parser!(u32).range(2..=pard::decoding::MAX_CONTEXT as i64))]
    pub context: Option<u32>,
    /// Weights on the device: as stored (f32 becomes bf16), all bf16 (f16 stays), or all f32
    #[arg(long, default_value = "compact", value_parser = one_of(&WEIGHTS))]
    weights: WeightDtype,
    /// Quantise the weights that are not quantised yet, while they are uploaded
    #[arg(long, value_name = "FORMAT", value_parser = quantised_format(), conflicts_with = "weights")]
    quantize: Option<WeightFormat>,
    /// Quantise the embedding table and the head to this [default: q8_0]
    #[arg(long, value_name = "FORMAT", value_parser = quantised_format(), requires = "quantize")]
    quantize_ends: Option<WeightFormat>,
    /// Keys and values on the device: 16 bits each, 32, or 8 and a scale for each 32
    #[arg(long, default_value = "f16", value_parser = one_of(&CACHES))]
    pub cache: CacheFormat,
    /// Kernels for matrix products: ordinary instructions, or the adapter's matrix units where it has some
    #[arg(long, default_value = "plain", value_parser = one_of(&PRODUCTS))]
    pub products: MatmulChoice,
    /// Arithmetic for quantised weights where products are plain: floats, or integers of 16 or 8 bits; auto uses 16-bit
    /// integers where the adapter is known to multiply bytes in one instruction, floats elsewhere
    #[arg(long, default_value = "auto", value_parser = one_of(&QUANTISED_PRODUCTS))]
    pub quantised_products: QuantisedChoice,
}

#[derive(Args, Clone, Default)]
pub struct DeviceArguments {
    /// The adapter: its index or a part of its name, as `pard devices` lists them
    #[arg(long, value_name = "INDEX|NAME")]
    pub device: Option<String>,
    /// vulkan, metal or dx12
    #[arg(long)]
    pub backend: Option<String>,
}

/// The longest context that is taken unless a longer one is asked for.
const DEFAULT_CONTEXT: usize = 4096;

pub const METHODS: [(&str, Method); 4] =
    [("ar", Method::Ar), ("vsd", Method::Vsd), ("pard", Method::Pard), ("ngram", Method::Ngram)];

const ACCEPTANCES: [(&str, AcceptanceRule); 2] =
    [("noise", AcceptanceRule::Noise), ("rejection", AcceptanceRule::Rejection)];

const WEIGHTS: [(&str, WeightDtype); 3] =
    [("compact", WeightDtype::Compact), ("bf16", WeightDtype::Bf16), ("f32", WeightDtype::F32)];

const CACHES: [(&str, CacheFormat); 3] =
    [("f16", CacheFormat::F16), ("f32", CacheFormat::F32), ("q8_0", CacheFormat::Q8_0)];

const PRODUCTS: [(&str, MatmulChoice); 2] =
    [("plain", MatmulChoice::Plain), ("cooperative", MatmulChoice::Cooperative)];

const STATES: [(&str, StatesChoice); 2] = [("auto", StatesChoice::Auto), ("off", StatesChoice::Off)];

const QUANTISED_PRODUCTS: [(&str, QuantisedChoice); 4] = [
    ("float", QuantisedChoice::Float),
    ("int16", QuantisedChoice::Integer16),
    ("int8", QuantisedChoice::Integer8),
    ("auto", QuantisedChoice::Auto),
];

/// One of the named values.
pub fn one_of<T>(choices: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T>
where
    T: Copy + Send + Sync + 'static,
{
    let value_of = |name: String| choices.iter().find(|(known, _)| *known == name).map(|&(_, value)| value);
    PossibleValuesParser::new(choices.iter().map(|&(name, _)| name))
        .try_map(move |name| value_of(name).ok_or("it is not one of the choices"))
}

/// The formats of quantised weights, the largest first.
pub fn quantised_formats() -> Vec<WeightFormat> {
    let mut formats: Vec<WeightFormat> = WeightFormat::quantised().collect();
    formats.sort_by_key(|format| std::cmp::Reverse(format.stored_bytes(256)));
    formats
}

/// One of [`quantised_formats`] by its name.
fn quantised_format() -> impl TypedValueParser<Value = WeightFormat> {
    PossibleValuesParser::new(quantised_formats().into_iter().map(WeightFormat::name))
        .try_map(|name| WeightFormat::named(&name).ok_or("it is not one of the formats"))
}

pub fn drafts(text: &str) -> Result<DraftLength, String> {
    match text.parse() {
        _ if text == "auto" => Ok(DraftLength::Auto),
        Ok(count) if count <= MAX_DRAFTS => Ok(DraftLength::Fixed(count)),
        _ => Err(format!("it is neither a number from 0 to {MAX_DRAFTS} nor `auto`")),
    }
}

pub fn temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(temperature) if (0.0..=MAX_TEMPERATURE).contains(&temperature) => Ok(temperature),
        _ => Err(format!("it is not a number from 0 to {MAX_TEMPERATURE}")),
    }
}

/// Bytes of so many GiB.
fn gibibytes(text: &str) -> Result<u64, String> {
    const GIB: f64 = (1u64 << 30) as f64;
    match text.parse::<f64>() {
        Ok(count) if count > 0.0 && count < 1e6 => Ok((count * GIB) as u64),
        _ => Err("it is not a number of GiB above 0".to_owned()),
    }
}

fn token_bias(text: &str) -> Result<(u32, f32), String> {
    let parts = text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    parts.ok_or_else(|| "it is not a token's id, `=` and a number".to_owned())
}

fn ngram(text: &str) -> Result<NgramOptions, String> {
    let (longest, shortest) = text.split_once(',').unwrap_or((text, "1"));
    match (longest.parse(), shortest.parse()) {
        (Ok(longest), Ok(shortest)) => Ok(NgramOptions::default().longest(longest).shortest(shortest)),
        _ => Err("it is neither a number nor two, separated by a comma".to_owned()),
    }
}

/// A count.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "it is no whole number from 0 on".to_owned())
}

/// A seed.
pub fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("it is no whole number from 0 to {}", u64::MAX))
}

/// A count above 0.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("it is no whole number from 1 on".to_owned()),
    }
}

impl DeviceArguments {
    pub fn query(&self) -> AdapterQuery {
        AdapterQuery::default().device(self.device.clone()).backend(self.backend.clone())
    }

    /// Opens the adapter.
    ///
    /// # Errors
    ///
    /// Those of [`Device::open`].
    pub fn open(&self) -> Result<Device> {
        Device::open(&self.query())
    }

    /// Opens the adapter, with the edited kernels that `folder` holds.
    ///
    /// # Errors
    ///
    /// Those of [`Device::open`] and [`Shaders::from_folder`].
    pub fn open_with(&self, folder: Option<&Path>, talk: Verbosity) -> Result<Device> {
        let Some(folder) = folder else { return self.open() };
        let shaders = Shaders::from_folder(folder)?;
        match shaders.edited().join(", ") {
            none if none.is_empty() => talk.note(&format!("no shader of {} differs from ours", folder.display())),
            names => talk.note(&format!("edited shaders: {names}")),
        }
        Device::open_with(&self.query(), shaders)
    }
}

impl MemoryArguments {
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions::default()
            .dtype(self.dtype())
            .cache(self.cache)
            .products(self.products)
            .quantised(self.quantised_products)
    }

    /// The same with weights kept as `dtype` says.
    pub fn load_options_with(&self, dtype: WeightDtype) -> LoadOptions {
        self.load_options().dtype(dtype)
    }

    /// Format of the weights on the device.
    pub fn dtype(&self) -> WeightDtype {
        let ends = self.quantize_ends.unwrap_or(WeightFormat::Q8_0);
        self.quantize.map_or(self.weights, |layers| WeightDtype::Quantised { layers, ends })
    }

    /// The context for a model that was made for `trained` tokens.
    pub fn context(&self, trained: usize) -> usize {
        self.context.map_or(trained.min(DEFAULT_CONTEXT), |tokens| tokens as usize)
    }
}

impl DecodingArguments {
    /// Options for a decoder that uses `method` in a context of `context` tokens.
    pub fn options(&self, method: Method, context: usize) -> SequenceOptions {
        let drafts = match method {
            Method::Ngram => self.draft_len.unwrap_or_default(),
            _ => self.models.drafts(self.draft_len),
        };
        SequenceOptions::default()
            .method(method)
            .drafts(drafts)
            .context(context)
            .run_ahead(self.run_ahead)
            .acceptance(self.acceptance)
            .ngram(self.ngram)
            .with_ngrams(self.with_ngrams)
            .sampling(self.sampling.options(self.logprobs))
    }
}

impl ModelArguments {
    /// K, where `asked` may leave it open: without a draft there is nothing to choose.
    pub fn drafts(&self, asked: Option<DraftLength>) -> DraftLength {
        match asked.unwrap_or_default() {
            DraftLength::Auto if self.draft.is_none() => DraftLength::Fixed(0),
            drafts => drafts,
        }
    }

    /// Opens the draft's adapter, which may be `device`, the target's.
    ///
    /// # Errors
    ///
    /// Those of [`Device::open`].
    pub fn open_draft_device(&self, device: &Device) -> Result<Device> {
        let target = self.device.query();
        let query = match &self.draft_device {
            Some(name) => target.clone().device(Some(name.clone())),
            None => return Ok(device.clone()),
        };
        if is_same_adapter(&query, &target)? { Ok(device.clone()) } else { Device::open(&query) }
    }

    /// Refuses speculation, which `flag` asks for, if no draft was named.
    pub fn check_draft(&self, flag: &'static str, speculates: bool) -> anyhow::Result<()> {
        match self.draft {
            None if speculates => Err(usage(flag, "it needs a draft model (-d)")),
            _ => Ok(()),
        }
    }
}
