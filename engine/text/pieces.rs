//! The bytes one token stands for, whatever stands around it.
//! The `tokenizers` crate decodes whole sequences; streamed text needs tokens one by one. Nearly every decoder in use
//! is a map from token to bytes plus a rule for the beginning of the text, and that is what is taken apart here.

use tokenizers::decoders::DecoderWrapper;
use tokenizers::normalizers::replace::Replace;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{Decoder, Tokenizer};

/// Decoding rule of a tokenizer.
pub(super) enum Pieces {
    /// GPT-2's: each character of a token stands for one byte.
    ByteLevel,
    /// SentencePiece's: `▁` is a space, `<0x0A>` a byte.
    SentencePiece {
        /// Applied to each token in turn.
        replacements: Vec<Replace>,
        /// `true` if `<0x0A>` is a byte.
        bytes: bool,
        /// Spaces dropped at the beginning of a text.
        leading: Leading,
    },
    /// Anything else: decoded by the crate in a window of tokens.
    Other,
}

/// The spaces that SentencePiece's encoder put before a text, taken away again.
#[derive(Clone, Copy)]
pub(super) enum Leading {
    /// None.
    Keep,
    /// Up to so many of this character.
    Strip(char, usize),
    /// All of this character in the first token; inside the text it is a space.
    Metaspace(char, bool),
}

impl Pieces {
    /// Returns the decoding rule of `tokenizer`.
    pub fn of(tokenizer: &Tokenizer) -> Pieces {
        let steps = match tokenizer.get_decoder() {
            Some(DecoderWrapper::Sequence(sequence)) => sequence.get_decoders(),
            Some(decoder) => std::slice::from_ref(decoder),
            None => return Pieces::Other,
        };
        if let [DecoderWrapper::ByteLevel(_)] = steps {
            return Pieces::ByteLevel;
        }
        let mut replacements = Vec::new();
        let (mut bytes, mut fused, mut leading) = (false, false, None);
        for step in steps {
            match step {
                DecoderWrapper::Replace(replace) if !bytes && !fused && leading.is_none() => {
                    replacements.push(replace.clone());
                }
                DecoderWrapper::ByteFallback(_) if !fused && leading.is_none() => bytes = true,
                DecoderWrapper::Fuse(_) => fused = true,
                DecoderWrapper::Strip(strip) if fused && leading.is_none() && strip.stop == 0 => {
                    leading = Some(Leading::Strip(strip.content, strip.start));
                }
                DecoderWrapper::Metaspace(metaspace) if !bytes && !fused && leading.is_none() => {
                    let drops = metaspace.prepend_scheme != PrependScheme::Never;
                    leading = Some(Leading::Metaspace(metaspace.get_replacement(), drops));
                }
                _ => return Pieces::Other,
            }
        }
        Pieces::SentencePiece { replacements, bytes, leading: leading.unwrap_or(Leading::Keep) }
    }
}

/// The bytes of a byte-level token. One with a character outside the alphabet (an added token) stands for itself.
pub(super) fn byte_level(token: &str) -> Vec<u8> {
    token.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

/// GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes follow from U+0100 on in order.
fn byte_of(character: char) -> Option<u8> {
    let printable = |code: u32| matches!(code, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = character as u32;
    if printable(code) {
        return Some(code as u8);
    }
    let rank = code.checked_sub(0x100)?;
    match rank {
        0..=0x20 => Some(rank as u8),
        // 0x7F..=0xA0, then 0xAD.
        0x21..=0x42 => Some((0x7F + rank - 0x21) as u8),
        0x43 => Some(0xAD),
        _ => None,
    }
}

/// The byte that a token like `<0x0A>` stands for.
pub(super) fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// `token` with `replacements` applied.
pub(super) fn replaced(token: String, replacements: &[Replace]) -> String {
    replacements.iter().fold(token, |token, replace| {
        replace.decode_chain(vec![token.clone()]).ok().and_then(|mut tokens| tokens.pop()).unwrap_or(token)
    })
}
