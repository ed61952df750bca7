//! Parameters of a request, read from its JSON: OpenAI's, llama.cpp's names for what OpenAI lacks, and an object `pard` of
//! our own. Parameters that are known but not supported are refused; unknown ones are ignored, as other servers do.

use pard::decoding::{DraftLength, Limits, MAX_DRAFTS, MAX_LOGPROBS, Method, SamplingParams};
use pard::text::{Grammar, Message, Rendering, Tool, ToolCall, ToolChoice};
use serde_json::{Value, json};

use super::fault::Fault;
use super::fields::Fields;
use super::job::{CacheName, Proposer, Reuse};

/// Answers of one request at most.
const MAX_ANSWERS: usize = 128;
/// Choices of a request at most.
const MAX_CHOICES: usize = 10_000;
/// Stop texts of a request at most, and the longest.
pub const MAX_STOPS: usize = 16;
const LONGEST_STOP: usize = 1024;

/// The two kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

/// A prompt, in one of the forms a request may have.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    Messages(Vec<Message>, Vec<Tool>, Rendering),
    Text(String),
    Tokens(Vec<u32>),
}

/// Defaults for a request, and the choices it has.
#[derive(Debug, Clone)]
pub struct Defaults {
    pub sampling: SamplingParams,
    pub limits: Limits,
    pub proposer: Proposer,
    /// The methods that the models allow.
    pub methods: Vec<Method>,
    /// Tokens that the model knows.
    pub vocab: usize,
    /// Set if there is a folder for caches.
    pub keeps_caches: bool,
}

/// A request that was understood.
#[derive(Debug, Clone)]
pub struct Ask {
    pub kind: Kind,
    pub prompts: Vec<Prompt>,
    /// Answers to each prompt.
    pub n: usize,
    pub limits: Limits,
    pub sampling: SamplingParams,
    /// The parameter that names the answer's form.
    pub form: &'static str,
    pub tools: Option<ToolUse>,
    pub proposer: Proposer,
    pub reuse: Reuse,
    /// Name under which the conversation's caches are kept on disk.
    pub cache: Option<CacheName>,
    /// Set if the prompt is repeated before each answer.
    pub echo: bool,
    pub stream: bool,
    /// Set if a stream ends with its token counts.
    pub include_usage: bool,
    /// Set if the reply reports each token's origin.
    pub report: bool,
    /// Set if thoughts are told from the text.
    pub splits_thoughts: bool,
}

/// The tools that an answer may call.
#[derive(Debug, Clone)]
pub struct ToolUse {
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    /// Set if one answer may call several.
    pub parallel: bool,
}

impl ToolUse {
    fn read(fields: &Fields) -> Result<Option<ToolUse>, Fault> {
        let list = fields.list("tools")?.unwrap_or_default();
        let tool = |(index, tool): (usize, &Value)| {
            let wrong = |what: &str| Fault::parameter(&format!("tools[{index}]"), what);
            match tool.get("type").and_then(Value::as_str) {
                None | Some("function") => Tool::from_json(tool).ok_or_else(|| wrong("its function's name is missing")),
                Some(other) => Err(wrong(&format!("it is a {other}, and functions alone are called"))),
            }
        };
        let tools = list.iter().enumerate().map(tool).collect::<Result<Vec<_>, Fault>>()?;
        let wrong = |what: String| Fault::parameter("tool_choice", what);
        let choice = match fields.get("tool_choice") {
            None => ToolChoice::Auto,
            Some(Value::String(text)) => match text.as_str() {
                "auto" => ToolChoice::Auto,
                "none" => ToolChoice::None,
                "required" | "any" => ToolChoice::Required,
                other => {
                    return Err(wrong(format!("it is {other}, and not one of auto, none, required and a function")));
                }
            },
            Some(value) => {
                let name = value.pointer("/function/name").or_else(|| value.get("name")).and_then(Value::as_str);
                ToolChoice::Named(name.ok_or_else(|| wrong("it names no function".to_owned()))?.to_owned())
            }
        };
        match &choice {
            ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => {
                return Err(wrong(format!("there is no tool {name:?}")));
            }
            ToolChoice::Required if tools.is_empty() => return Err(wrong("there are no tools".to_owned())),
            _ => {}
        }
        let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
        Ok((!tools.is_empty() && choice != ToolChoice::None).then_some(ToolUse { tools, choice, parallel }))
    }
}

impl Ask {
    /// Reads the body of a request.
    ///
    /// # Errors
    ///
    /// 400, which names the parameter.
    pub fn read(kind: Kind, body: &Value, defaults: &Defaults) -> Result<Ask, Fault> {
        let fields = Fields::of(body)?;
        refuse_what_is_missing(kind, &fields)?;
        let tools = if kind == Kind::Chat { ToolUse::read(&fields)? } else { None };
        let prompts = match kind {
            Kind::Chat => vec![messages(&fields, tools.as_ref())?],
            Kind::Text => text_prompts(&fields)?,
        };
        let n = fields.count("n", 1..=MAX_ANSWERS)?.unwrap_or(1);
        if prompts.len() * n > MAX_ANSWERS {
            return Err(Fault::parameter("n", format!("a request gets {MAX_ANSWERS} answers at most")));
        }
        if fields.count("best_of", 1..=MAX_ANSWERS)?.is_some_and(|best| best != n) {
            return Err(Fault::parameter("best_of", "only as many answers are written as `n` asks for"));
        }
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let stream_options = fields.object("stream_options", "stream_options.")?;
        if stream_options.is_some() && !stream {
            return Err(Fault::parameter("stream_options", "they are for answers that are streamed"));
        }
        let extras = fields.object("pard", "pard.")?;
        let echo = kind == Kind::Text && fields.boolean("echo")?.unwrap_or(false);
        let limits = limits(kind, &fields, defaults)?;
        let (sampling, form) = sampling(kind, &fields, defaults)?;
        Ok(Ask {
            kind,
            prompts,
            n,
            limits,
            sampling,
            form,
            tools,
            proposer: extras.as_ref().map_or(Ok(defaults.proposer), |extras| proposer(extras, defaults))?,
            reuse: match fields.boolean("cache_prompt")? {
                Some(false) => Reuse::Never,
                // Caches hold no log-probabilities.
                _ if echo && fields.get("logprobs").is_some() => Reuse::Never,
                _ => Reuse::Allowed,
            },
            cache: extras.as_ref().map_or(Ok(None), |extras| cache(extras, defaults))?,
            echo,
            stream,
            include_usage: match stream_options {
                Some(options) => options.boolean("include_usage")?.unwrap_or(false),
                None => false,
            },
            report: extras.is_some(),
            splits_thoughts: splits_thoughts(&fields)?,
        })
    }

    /// A request for the tokens of a prompt.
    ///
    /// # Errors
    ///
    /// As [`Ask::read`].
    pub fn to_tokenize(body: &Value) -> Result<ToTokenize, Fault> {
        let fields = Fields::of(body)?;
        for (name, allowed, reason) in [
            ("parse_special", true, "special tokens in a text are tokens"),
            ("continue_final_message", false, "the last message is not continued"),
        ] {
            fields.refuse_unless(name, &[json!(allowed)], reason)?;
        }
        let pieces = fields.boolean("with_pieces")?.unwrap_or(false);
        let texts = fields.boolean("return_token_strs")?.unwrap_or(false);
        let (mut prompt, special) = prompt_to_tokenize(&fields)?;
        if let Prompt::Messages(.., rendering) = &mut prompt {
            rendering.add_generation_prompt = fields.boolean("add_generation_prompt")?.unwrap_or(true);
        }
        Ok(ToTokenize { prompt, special, pieces, texts })
    }

    /// The tokens of a request for their text.
    ///
    /// # Errors
    ///
    /// As [`Ask::read`].
    pub fn tokens_to_detokenize(body: &Value) -> Result<Vec<u32>, Fault> {
        let wrong = || Fault::parameter("tokens", "a list of tokens is needed");
        let list = Fields::of(body)?.list("tokens")?.ok_or_else(wrong)?;
        let ids = list.iter().map(|value| value.as_u64().and_then(|id| u32::try_from(id).ok()));
        ids.collect::<Option<Vec<u32>>>().ok_or_else(wrong)
    }

    /// Sampling options of the answer `index`: each has a seed of its own.
    pub fn sampling_of(&self, index: usize) -> SamplingParams {
        // Greedy decoding uses no seed.
        let seed = if self.sampling.temperature == 0.0 { 0 } else { self.sampling.seed.wrapping_add(index as u64) };
        self.sampling.clone().seed(seed)
    }
}

/// A prompt of which the tokens are wanted.
pub struct ToTokenize {
    pub prompt: Prompt,
    /// Set if those that the model wants around a text are wanted, too.
    pub special: bool,
    /// Set if each token's bytes are wanted beside it, as llama.cpp gives them.
    pub pieces: bool,
    /// Set if the tokens' texts are wanted in a list, as vLLM gives them.
    pub texts: bool,
}

fn prompt_to_tokenize(fields: &Fields) -> Result<(Prompt, bool), Fault> {
    if fields.get("messages").is_some() {
        let tools = ToolUse::read(fields)?;
        return Ok((messages(fields, tools.as_ref())?, true));
    }
    // vLLM adds special tokens unless told otherwise, llama.cpp does not.
    if let Some(text) = fields.text("prompt")? {
        return Ok((Prompt::Text(text.to_owned()), fields.boolean("add_special_tokens")?.unwrap_or(true)));
    }
    let missing = || Fault::parameter("content", "a text is needed");
    let text = fields.text("content")?.ok_or_else(missing)?;
    Ok((Prompt::Text(text.to_owned()), fields.boolean("add_special")?.unwrap_or(false)))
}

const NO_SAMPLER: &str = "tokens are chosen by temperature, top_k, top_p, min_p and penalties";

/// Refuses parameters that would change the answer and that nothing here acts on.
fn refuse_what_is_missing(kind: Kind, fields: &Fields) -> Result<(), Fault> {
    let none = [json!([]), json!("none"), json!("auto"), json!({})];
    for name in ["functions", "function_call"] {
        fields.refuse_unless(name, &none, "its place was taken by tools and tool_choice")?;
    }
    if kind == Kind::Text {
        for name in ["tools", "tool_choice"] {
            fields.refuse_unless(name, &none, "tools are called in chats")?;
        }
    }
    fields.refuse_unless("modalities", &[json!(["text"])], "only text is written")?;
    fields.refuse_unless("audio", &[], "it is not supported")?;
    fields.refuse_unless("prompt_logprobs", &[json!(0)], "echo with logprobs has those of a text")?;
    fields.refuse_unless("use_beam_search", &[json!(false)], "there is no beam search")?;
    fields.refuse_unless("continue_final_message", &[json!(false)], "the last message is not continued")?;
    for (name, allowed, reason) in [
        ("regex", json!([]), "guided_regex names one here"),
        ("ebnf", json!([]), "guided_grammar names a grammar here, in GBNF or Lark"),
        ("typical_p", json!([1]), NO_SAMPLER),
        ("tfs_z", json!([1]), NO_SAMPLER),
        ("mirostat", json!([0]), NO_SAMPLER),
        ("dynatemp_range", json!([0]), NO_SAMPLER),
        ("xtc_probability", json!([0]), NO_SAMPLER),
        ("dry_multiplier", json!([0]), NO_SAMPLER),
        ("top_n_sigma", json!([-1, 0]), NO_SAMPLER),
        ("length_penalty", json!([1]), "there is no beam search"),
        ("allowed_token_ids", json!([[]]), "it is not supported; logit_bias and guided_choice bound an answer"),
        ("bad_words", json!([[]]), "it is not supported; logit_bias bans tokens"),
        ("skip_special_tokens", json!([true]), "special tokens are never part of the text"),
        ("include_stop_str_in_output", json!([false]), "the text ends before what stops it"),
        ("no_stop_trim", json!([false]), "the text ends before what stops it"),
        ("truncate_prompt_tokens", json!([]), "no prompt is cut"),
        ("logits_processors", json!([[]]), "the server runs no code of a request"),
        ("custom_logit_processor", json!([]), "the server runs no code of a request"),
        ("lora", json!([[]]), "there are no adapters of models"),
        ("lora_path", json!([]), "there are no adapters of models"),
        ("n_probs", json!([0]), "logprobs asks for probabilities here"),
        ("t_max_predict_ms", json!([0, -1]), "no answer has a limit of time"),
        ("n_indent", json!([0]), "it is not supported"),
        ("min_new_tokens", json!([0]), "min_tokens is the name here"),
        ("max_new_tokens", json!([]), "max_tokens is the name here"),
        ("max_length", json!([]), "max_tokens is the name here, and counts the answer alone"),
        ("num_predict", json!([]), "max_tokens is the name here"),
        ("num_ctx", json!([]), "the server's option --context says it"),
        ("stop_sequences", json!([[]]), "stop is the name here"),
        ("system", json!([]), "a message of the role system says it"),
        ("samplers", json!([[]]), "the order of samplers is fixed"),
        ("min_keep", json!([0]), NO_SAMPLER),
        ("adaptive_target", json!([-1]), NO_SAMPLER),
        ("no_repeat_ngram_size", json!([0]), NO_SAMPLER),
        ("do_sample", json!([]), "temperature says it: 0 takes the likeliest token"),
        ("verbosity", json!(["medium"]), "it is not supported; the prompt can say how long the answer is to be"),
        ("web_search_options", json!([]), "nothing is searched for"),
        ("post_sampling_probs", json!([false]), "probabilities are those before sampling"),
        ("return_token_ids", json!([false]), "pard, an empty object, reports the tokens"),
        ("return_tokens", json!([false]), "pard, an empty object, reports the tokens"),
        ("return_tokens_as_token_ids", json!([false]), "pard, an empty object, reports the tokens"),
        ("include_reasoning", json!([true]), "thoughts are told from the text, and not left out"),
        ("thinking_token_budget", json!([]), "thoughts have no limit of their own"),
        ("reasoning_budget", json!([-1]), "thoughts have no limit of their own"),
        ("echo", json!([kind == Kind::Text, false]), "a conversation is not repeated"),
        ("add_special_tokens", json!([kind == Kind::Text]), "the kind of the request says so"),
        ("chat_template", json!([]), "the model's own is used"),
        ("add_generation_prompt", json!([true]), "an answer always follows"),
        ("documents", json!([[]]), "they are not given to the template; put them into a message"),
    ] {
        fields.refuse_unless(name, allowed.as_array().map_or(&[], Vec::as_slice), reason)?;
    }
    if kind == Kind::Text {
        fields.refuse_unless("suffix", &[json!("")], "nothing is written into the middle of a text")?;
    }
    Ok(())
}

fn messages(fields: &Fields, tools: Option<&ToolUse>) -> Result<Prompt, Fault> {
    let missing = || Fault::parameter("messages", "a list of messages is needed");
    let list = fields.list("messages")?.filter(|list| !list.is_empty()).ok_or_else(missing)?;
    let messages = list.iter().enumerate().map(|(index, message)| {
        let wrong = |what: &str| Fault::parameter(&format!("messages[{index}]"), what);
        let object = message.as_object().ok_or_else(|| wrong("it is no object"))?;
        let role = object.get("role").and_then(Value::as_str).ok_or_else(|| wrong("its role is missing"))?;
        let role = match role {
            "system" | "developer" => "system",
            "user" | "assistant" | "tool" => role,
            _ => return Err(wrong("its role is none of system, developer, user, assistant and tool")),
        };
        let calls = match object.get("tool_calls") {
            None | Some(Value::Null) => &[],
            Some(Value::Array(calls)) if role == "assistant" || calls.is_empty() => calls.as_slice(),
            _ => return Err(wrong("its tool_calls are no list of calls by the assistant")),
        };
        if object.get("function_call").is_some_and(|call| !call.is_null()) {
            return Err(wrong("its function_call is of a kind whose place was taken by tool_calls"));
        }
        let content = match object.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => {
                let part = |part: &Value| match part.get("type").and_then(Value::as_str) {
                    Some("text") => part.get("text").and_then(Value::as_str).map(str::to_owned),
                    _ => None,
                };
                let parts: Option<Vec<String>> = parts.iter().map(part).collect();
                parts.ok_or_else(|| wrong("a part of its content is no text"))?.join("\n")
            }
            None | Some(Value::Null) if role == "assistant" => String::new(),
            _ => return Err(wrong("its content is neither a text nor a list of texts")),
        };
        let text = |name: &str| match object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong(&format!("its {name} is no text"))),
        };
        let mut message = Message::new(role, content);
        message.tool_calls = calls.iter().map(tool_call).collect::<Option<_>>().ok_or_else(|| {
            wrong("a tool call of it is no function's, or lacks its name, its arguments or a text as its id")
        })?;
        (message.tool_call_id, message.name) = (text("tool_call_id")?, text("name")?);
        message.reasoning_content = match object.get("reasoning_content") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if role == "assistant" => Some(text.clone()),
            _ => return Err(wrong("its reasoning_content is no text of the assistant")),
        };
        Ok(message)
    });
    let messages = messages.collect::<Result<Vec<_>, Fault>>()?;
    let tools = tools.map(|tools| tools.tools.clone()).unwrap_or_default();
    Ok(Prompt::Messages(messages, tools, rendering(fields)?))
}

/// The template's variables: those of `chat_template_kwargs`, of which clients name `enable_thinking` and `reasoning_effort`
/// beside them, too.
fn rendering(fields: &Fields) -> Result<Rendering, Fault> {
    let name = "chat_template_kwargs";
    let object =
        fields.get(name).map(|value| value.as_object().ok_or_else(|| Fault::parameter(name, "it is no object")));
    let mut rendering = Rendering::default();
    if let Some(effort) = fields.text("reasoning_effort")? {
        rendering.enable_thinking = Some(effort != "none");
        rendering.variables.insert("reasoning_effort".to_owned(), json!(effort));
    }
    rendering.enable_thinking = fields.boolean("enable_thinking")?.or(rendering.enable_thinking);
    for (key, value) in object.transpose()?.into_iter().flatten() {
        let wrong = |what: &str| Err(Fault::parameter(&format!("{name}.{key}"), what));
        match (key.as_str(), value) {
            (_, Value::Null) => {}
            ("enable_thinking", Value::Bool(enables)) => rendering.enable_thinking = Some(*enables),
            ("enable_thinking", _) => return wrong("it is neither true nor false"),
            ("messages" | "tools" | "documents" | "add_generation_prompt", _) => {
                return wrong("the rest of the request says it");
            }
            (_, Value::Object(_)) => {
                return wrong("it is an object, and neither true nor false nor a number, a text or a list");
            }
            (_, value) => drop(rendering.variables.insert(key.clone(), value.clone())),
        }
    }
    Ok(rendering)
}

/// Reads SGLang's name and llama.cpp's for what becomes of thoughts.
fn splits_thoughts(fields: &Fields) -> Result<bool, Fault> {
    if fields.boolean("separate_reasoning")? == Some(false) {
        return Ok(false);
    }
    match fields.text("reasoning_format")? {
        None | Some("auto" | "deepseek") => Ok(true),
        Some("none") => Ok(false),
        Some(other) => {
            let reason = format!("it is {other}, and not one of auto, deepseek and none");
            Err(Fault::parameter("reasoning_format", reason))
        }
    }
}

/// A call that an earlier answer made.
fn tool_call(call: &Value) -> Option<ToolCall> {
    if call.get("type").is_some_and(|kind| !kind.is_null() && kind != "function") {
        return None;
    }
    let function = call.get("function")?;
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) => text.clone(),
        Some(arguments) => arguments.to_string(),
        None => return None,
    };
    let id = call.get("id").filter(|id| !id.is_null()).map_or(Some(""), Value::as_str)?.to_owned();
    Some(ToolCall { id, name: function.get("name")?.as_str()?.to_owned(), arguments })
}

fn text_prompts(fields: &Fields) -> Result<Vec<Prompt>, Fault> {
    let wrong = || Fault::parameter("prompt", "it is neither a text, nor tokens, nor a list of either");
    let tokens = |list: &[Value]| -> Option<Prompt> {
        let ids = list.iter().map(|value| value.as_u64().and_then(|id| u32::try_from(id).ok()));
        ids.collect::<Option<Vec<u32>>>().map(Prompt::Tokens)
    };
    match fields.get("prompt") {
        Some(Value::String(text)) => Ok(vec![Prompt::Text(text.clone())]),
        Some(Value::Array(list)) if list.is_empty() => Err(wrong()),
        Some(Value::Array(list)) if list[0].is_number() => Ok(vec![tokens(list).ok_or_else(wrong)?]),
        Some(Value::Array(list)) => {
            if list.len() > MAX_ANSWERS {
                return Err(Fault::parameter("prompt", format!("a request gets {MAX_ANSWERS} answers at most")));
            }
            let one = |value: &Value| match value {
                Value::String(text) => Some(Prompt::Text(text.clone())),
                Value::Array(list) => tokens(list),
                _ => None,
            };
            list.iter().map(one).collect::<Option<Vec<_>>>().ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

fn limits(kind: Kind, fields: &Fields, defaults: &Defaults) -> Result<Limits, Fault> {
    let mut max_tokens = defaults.limits.max_tokens;
    for name in ["n_predict", "max_tokens", "max_completion_tokens"] {
        // llama.cpp's way to ask for no limit.
        if fields.get(name).is_some_and(|value| value.as_f64() == Some(-1.0)) {
            max_tokens = usize::MAX;
            continue;
        }
        // A text may be no more than its prompt, repeated.
        let fewest = usize::from(kind == Kind::Chat);
        max_tokens = fields.count(name, fewest..=usize::MAX)?.unwrap_or(max_tokens);
    }
    let mut stop = defaults.limits.stop.clone();
    for text in fields.texts("stop", MAX_STOPS)?.unwrap_or_default() {
        if text.is_empty() || text.len() > LONGEST_STOP {
            return Err(Fault::parameter("stop", format!("a text has 1 to {LONGEST_STOP} bytes")));
        }
        stop.push(text);
    }
    let ids = fields.list("stop_token_ids")?.unwrap_or_default();
    let ids = ids
        .iter()
        .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < defaults.vocab));
    let wrong = || {
        Fault::parameter("stop_token_ids", format!("they are no tokens of the {} that the model knows", defaults.vocab))
    };
    let min_tokens = fields.count("min_tokens", 0..=usize::MAX)?;
    if let Some(least) = min_tokens.filter(|&least| least > max_tokens) {
        return Err(Fault::parameter("min_tokens", format!("{least} are more than the {max_tokens} at most")));
    }
    let min_tokens = min_tokens.unwrap_or(defaults.limits.min_tokens);
    let limits = Limits::default().max_tokens(max_tokens).min_tokens(min_tokens).stop(stop);
    let limits = limits.stop_tokens(ids.collect::<Option<Vec<u32>>>().ok_or_else(wrong)?);
    Ok(limits.ignore_stop_tokens(fields.boolean("ignore_eos")?.unwrap_or(false)))
}

/// How tokens are chosen, and the parameter that names the answer's form.
fn sampling(kind: Kind, fields: &Fields, defaults: &Defaults) -> Result<(SamplingParams, &'static str), Fault> {
    let mut sampling = defaults.sampling.clone();
    // Two requests are two draws, unless somebody says otherwise.
    let named = Some(defaults.sampling.seed).filter(|&seed| seed != 0);
    sampling.seed = fields.seed("seed")?.or(named).unwrap_or_else(|| fastrand::u64(..));
    for (name, value) in [
        ("temperature", &mut sampling.temperature),
        ("top_p", &mut sampling.top_p),
        ("min_p", &mut sampling.min_p),
        ("presence_penalty", &mut sampling.presence_penalty),
        ("frequency_penalty", &mut sampling.frequency_penalty),
        ("repetition_penalty", &mut sampling.repetition_penalty),
    ] {
        *value = fields.number(name)?.unwrap_or(*value);
    }
    sampling.repetition_penalty = fields.number("repeat_penalty")?.unwrap_or(sampling.repetition_penalty);
    // vLLM's way to ask for all tokens.
    sampling.top_k = match fields.get("top_k").and_then(Value::as_f64) {
        Some(-1.0) => 0,
        _ => fields.count("top_k", 0..=usize::MAX)?.unwrap_or(sampling.top_k),
    };
    if sampling.repetition_penalty != 1.0 || sampling.presence_penalty != 0.0 || sampling.frequency_penalty != 0.0 {
        fields.refuse_unless("repeat_last_n", &[json!(-1)], "penalties count all tokens")?;
    }
    if let Some(biases) = fields.biases("logit_bias")? {
        for (id, bias) in biases {
            match bias {
                Some(bias) => sampling.logit_bias.push((id, bias)),
                None => sampling.banned.push(id),
            }
        }
    }
    let mut form = "response_format";
    if let Some((name, grammar)) = grammar(fields)? {
        (form, sampling.grammar) = (name, Some(grammar));
    }
    sampling.top_logprobs = match kind {
        Kind::Chat if fields.boolean("logprobs")?.unwrap_or(false) => {
            Some(fields.count("top_logprobs", 0..=MAX_LOGPROBS)?.unwrap_or(0))
        }
        Kind::Chat => {
            fields.refuse_unless("top_logprobs", &[json!(0)], "it needs logprobs")?;
            None
        }
        Kind::Text => fields.count("logprobs", 0..=MAX_LOGPROBS)?,
    };
    sampling.check().and_then(|()| sampling.check_tokens(defaults.vocab)).map_err(|error| Fault::of(&error))?;
    Ok((sampling, form))
}

/// The grammar that an answer is to keep to, and its name: OpenAI's, llama.cpp's or vLLM's.
fn grammar(fields: &Fields) -> Result<Option<(&'static str, Grammar)>, Fault> {
    let mut found: Vec<(&str, Grammar)> = Vec::new();
    let format = fields.object("response_format", "response_format.")?;
    if let Some(grammar) = format.map_or(Ok(None), |format| response_format(&format))? {
        found.push(("response_format", grammar));
    }
    let structured = fields.object("structured_outputs", "structured_outputs.")?;
    for (of_request, of_object) in [
        ("json_schema", "json"),
        ("guided_json", "json"),
        ("guided_regex", "regex"),
        ("guided_choice", "choice"),
        ("grammar", "grammar"),
        ("guided_grammar", "grammar"),
    ] {
        found.extend(grammar_of(of_object, fields, of_request)?.map(|grammar| (of_request, grammar)));
    }
    if let Some(structured) = &structured {
        structured.refuse_unless("structural_tag", &[], "it is not supported")?;
        for name in ["json", "regex", "choice", "grammar"] {
            found.extend(grammar_of(name, structured, name)?.map(|grammar| ("structured_outputs", grammar)));
        }
        if structured.boolean("json_object")?.unwrap_or(false) {
            found.push(("structured_outputs", Grammar::Json));
        }
    }
    match &found[..] {
        [(one, _), (other, _), ..] => {
            Err(Fault::parameter(other, format!("an answer has one form, and {one} names one")))
        }
        _ => Ok(found.pop()),
    }
}

fn response_format(format: &Fields) -> Result<Option<Grammar>, Fault> {
    match format.text("type")? {
        None | Some("text") => Ok(None),
        // llama.cpp takes a schema here as well.
        Some("json_object") => Ok(Some(grammar_of("json", format, "schema")?.unwrap_or(Grammar::Json))),
        Some("json_schema") => {
            let missing = || Fault::parameter("response_format.json_schema", "it is missing");
            let named = format.object("json_schema", "response_format.json_schema.")?.ok_or_else(missing)?;
            let missing = || Fault::parameter("response_format.json_schema.schema", "it is missing");
            grammar_of("json", &named, "schema")?.ok_or_else(missing).map(Some)
        }
        Some(other) => {
            let reason = format!("it is {other}, and not one of text, json_object and json_schema");
            Err(Fault::parameter("response_format.type", reason))
        }
    }
}

/// The grammar of the kind `kind` in the field `name`.
fn grammar_of(kind: &str, fields: &Fields, name: &str) -> Result<Option<Grammar>, Fault> {
    Ok(match kind {
        "json" => fields.get(name).map(|schema| match schema {
            Value::String(text) => Grammar::JsonSchema(text.clone()),
            schema => Grammar::JsonSchema(schema.to_string()),
        }),
        "regex" => fields.text(name)?.map(|text| Grammar::Regex(text.to_owned())),
        "choice" => fields.texts(name, MAX_CHOICES)?.map(Grammar::Choice),
        _ => fields.text(name)?.filter(|text| !text.is_empty()).map(|text| Grammar::Lark(text.to_owned())),
    })
}

fn proposer(extras: &Fields, defaults: &Defaults) -> Result<Proposer, Fault> {
    let mut proposer = defaults.proposer;
    let names: Vec<&str> = defaults.methods.iter().map(|method| method.name()).collect();
    if let Some(name) = extras.text("method")? {
        let found = defaults.methods.iter().find(|method| method.name() == name);
        let missing = || Fault::parameter("pard.method", format!("there is {}", names.join(", ")));
        let method = *found.ok_or_else(missing)?;
        if proposer.method == Method::Ar && method != Method::Ar {
            proposer.drafts = DraftLength::Auto;
        }
        proposer.method = method;
    }
    match extras.get("k") {
        Some(Value::String(text)) if text == "auto" => proposer.drafts = DraftLength::Auto,
        Some(_) => proposer.drafts = DraftLength::Fixed(extras.count("k", 0..=MAX_DRAFTS)?.unwrap_or(0)),
        None => {}
    }
    Ok(proposer.simplest())
}

fn cache(extras: &Fields, defaults: &Defaults) -> Result<Option<CacheName>, Fault> {
    let Some(name) = extras.text("cache")? else { return Ok(None) };
    let wrong = |what: &str| Fault::parameter("pard.cache", what);
    if !defaults.keeps_caches {
        return Err(wrong("this server keeps no caches; --cache-dir gives it a folder"));
    }
    let name = CacheName::parse(name);
    name.map(Some).ok_or_else(|| wrong("a name is up to 64 letters and digits, with - and _ after the first"))
}

impl Proposer {
    /// The same where nothing is proposed: AR.
    pub fn simplest(self) -> Proposer {
        match self {
            Proposer { method: Method::Ar, .. } | Proposer { drafts: DraftLength::Fixed(0), .. } => {
                Proposer { method: Method::Ar, drafts: DraftLength::Fixed(0) }
            }
            proposer => proposer,
        }
    }
}
