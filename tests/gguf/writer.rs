//! A small GGUF writer, enough to make the files that tests read.

/// The numbers of the element types.
pub mod element {
    pub const F32: u32 = 0;
    pub const F16: u32 = 1;
    pub const Q8_0: u32 = 8;
    pub const BF16: u32 = 30;
}

/// Pads data to this.
const ALIGNMENT: usize = 32;

/// A metadata value.
#[derive(Clone)]
pub enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// A type number and the bytes after it, right or wrong.
    Raw(u32, Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Value {
        Value::U32(value)
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Value {
        Value::F32(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

/// A tensor; `offset` is within the data, laid out one after the other if `None`.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// Outermost first.
    pub shape: Vec<u64>,
    pub element: u32,
    pub bytes: Vec<u8>,
    pub offset: Option<u64>,
}

/// A file to be written.
#[derive(Clone)]
pub struct Writer {
    pub version: u32,
    pub keys: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer { version: 3, keys: Vec::new(), tensors: Vec::new() }
    }
}

impl Writer {
    /// Sets `key`, in place of what it had.
    pub fn key(mut self, key: &str, value: impl Into<Value>) -> Writer {
        let value = value.into();
        match self.keys.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = value,
            None => self.keys.push((key.to_owned(), value)),
        }
        self
    }

    /// Removes `key`.
    pub fn without(mut self, key: &str) -> Writer {
        self.keys.retain(|(known, _)| known != key);
        self
    }

    /// Adds a tensor of any type.
    pub fn tensor(mut self, name: &str, shape: &[u64], element: u32, bytes: Vec<u8>) -> Writer {
        self.tensors.push(Tensor { name: name.to_owned(), shape: shape.to_vec(), element, bytes, offset: None });
        self
    }

    /// Adds an F32 tensor whose values are their own indices.
    pub fn counting(self, name: &str, shape: &[u64]) -> Writer {
        let values = 0..shape.iter().product::<u64>();
        self.tensor(name, shape, element::F32, values.flat_map(|value| (value as f32).to_le_bytes()).collect())
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            text(&mut out, key);
            write_value(&mut out, value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
            text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(tensor.element.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
        }
        if !data.is_empty() {
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        }
        out.extend(data);
        out
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    let array = |out: &mut Vec<u8>, element: u32, len: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(element.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    match value {
        Value::U32(value) => {
            out.extend(4u32.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        Value::F32(value) => {
            out.extend(6u32.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        Value::Bool(value) => {
            out.extend(7u32.to_le_bytes());
            out.push(u8::from(*value));
        }
        Value::Text(value) => {
            out.extend(8u32.to_le_bytes());
            text(out, value);
        }
        Value::Texts(values) => {
            array(out, 8, values.len());
            values.iter().for_each(|value| text(out, value));
        }
        Value::I32s(values) => {
            array(out, 5, values.len());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        Value::F32s(values) => {
            array(out, 6, values.len());
            values.iter().for_each(|value| out.extend(value.to_le_bytes()));
        }
        Value::Raw(kind, bytes) => {
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        }
    }
}

/// The hyper-parameters of a Llama with two layers: sizes of hidden and feed-forward rows, heads and key-value heads, and
/// their width.
pub fn llama(name: &str, [hidden, feed_forward]: [u32; 2], [heads, kv_heads]: [u32; 2], head_dim: u32) -> Writer {
    Writer::default()
        .key("general.architecture", "llama")
        .key("general.name", name)
        .key("llama.block_count", 2)
        .key("llama.context_length", 128)
        .key("llama.embedding_length", hidden)
        .key("llama.feed_forward_length", feed_forward)
        .key("llama.attention.head_count", heads)
        .key("llama.attention.head_count_kv", kv_heads)
        .key("llama.rope.dimension_count", head_dim)
        .key("llama.rope.freq_base", 10_000.0)
        .key("llama.attention.layer_norm_rms_epsilon", 1e-5)
}

/// A Llama with two layers, two heads of 32 and one key-value head, whose tensors count, and a byte-level tokenizer.
pub fn small_llama() -> Writer {
    let writer = llama("Small", [64, 96], [2, 1], 32).key("llama.rope.freq_base", 100_000.0);
    let tokens = byte_tokens();
    let vocab = tokens.0.len() as u64;
    let mut writer = with_tokens(writer, tokens).key("tokenizer.chat_template", "{{ messages }}");
    for layer in 0..2 {
        for (name, shape) in [
            ("attn_norm", &[64][..]),
            ("attn_q", &[64, 64]),
            ("attn_k", &[32, 64]),
            ("attn_v", &[32, 64]),
            ("attn_output", &[64, 64]),
            ("ffn_norm", &[64]),
            ("ffn_gate", &[96, 64]),
            ("ffn_up", &[96, 64]),
            ("ffn_down", &[64, 96]),
        ] {
            writer = writer.counting(&format!("blk.{layer}.{name}.weight"), shape);
        }
    }
    writer.counting("token_embd.weight", &[vocab, 64]).counting("output_norm.weight", &[64])
}

/// The 256 bytes as byte-level models write them, a few merged tokens and two control tokens; with types and merges.
pub fn byte_tokens() -> (Vec<String>, Vec<i32>, Vec<String>) {
    let mut shifted = 256;
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte).to_string(),
            _ => {
                shifted += 1;
                char::from_u32(shifted - 1).expect("a character").to_string()
            }
        })
        .collect();
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w"].map(str::to_owned).to_vec();
    tokens.extend(["he", "ll", "hell", "hello", "Ġw"].map(str::to_owned));
    let mut types = vec![1; tokens.len()];
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "[PAD265]"].map(str::to_owned));
    types.extend([3, 3, 3, 4, 5]);
    (tokens, types, merges)
}

/// Puts a byte-level tokenizer of these tokens into `writer`.
pub fn with_tokens(writer: Writer, (tokens, types, merges): (Vec<String>, Vec<i32>, Vec<String>)) -> Writer {
    writer
        .key("tokenizer.ggml.model", "gpt2")
        .key("tokenizer.ggml.pre", "smollm")
        .key("tokenizer.ggml.tokens", Value::Texts(tokens))
        .key("tokenizer.ggml.token_type", Value::I32s(types))
        .key("tokenizer.ggml.merges", Value::Texts(merges))
        .key("tokenizer.ggml.bos_token_id", 262)
        .key("tokenizer.ggml.eos_token_id", 263)
}
