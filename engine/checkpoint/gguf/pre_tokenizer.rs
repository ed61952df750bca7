//! Splitting of text into words before pairs are merged, in byte-level models. The file gives only a name
//! (`tokenizer.ggml.pre`); its meaning is in llama.cpp's `llama-vocab.cpp` and in the `tokenizer.json` of its models.
//! Where the two differ, as in Qwen's Unicode normalisation, the latter holds: the model was trained with it.

use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::SplitDelimiterBehavior;

use super::metadata::{Metadata, fault};
use crate::error::Result;

/// Words of letters, of digits, of other signs, and whitespace up to the last blank before a word.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// As GPT-4's: digits in groups of at most three, line breaks apart.
const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// As Llama 3's, but with digits one by one.
const QWEN_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Mistral's: words break where lower case turns to upper case.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// One way to split.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PreTokenizer {
    /// Its names in files.
    names: &'static [&'static str],
    /// Each splits the pieces that the ones before it left.
    splits: &'static [&'static str],
    /// `true` if text is normalised to Unicode's form C first.
    pub compose: bool,
    /// `true` if a word that is a token is taken whole, without merging.
    pub ignore_merges: bool,
    /// `true` if texts begin with the begin token unless the file says otherwise.
    pub add_begin: bool,
}

const fn plain(names: &'static [&'static str], splits: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer { names, splits, compose: false, ignore_merges: false, add_begin: false }
}

static KNOWN: [PreTokenizer; 8] = [
    plain(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    plain(&["gpt-2"], &[GPT_2]),
    plain(&["smollm", "starcoder", "refact", "command-r", "minerva-7b"], &[r"\p{N}", GPT_2]),
    plain(&["smaug-bpe", "dbrx"], &[LLAMA_3]),
    plain(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"]),
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3"],
        splits: &[LLAMA_3],
        compose: false,
        ignore_merges: true,
        add_begin: true,
    },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen", "megrez"],
        splits: &[QWEN_2],
        compose: true,
        ignore_merges: false,
        add_begin: false,
    },
    PreTokenizer { names: &["tekken"], splits: &[TEKKEN], compose: false, ignore_merges: true, add_begin: true },
];

impl PreTokenizer {
    /// The one that the file names; llama.cpp's default where it names none.
    pub fn find(metadata: Metadata) -> Result<&'static PreTokenizer> {
        let name = metadata.text("tokenizer.ggml.pre")?.unwrap_or("default");
        KNOWN.iter().find(|known| known.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> = KNOWN.iter().flat_map(|known| known.names).copied().collect();
            fault(
                metadata,
                format!(
                    "tokenizer.ggml.pre {name:?} is not known (known: {}); use the model's Hugging Face folder, whose \
                     tokenizer.json says how text is split",
                    known.join(", ")
                ),
            )
        })
    }

    /// The splits, and then bytes as characters.
    pub fn build(&self) -> tokenizers::Result<Sequence> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        for pattern in self.splits {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into());
        }
        steps.push(ByteLevel::new(false, false, false).into());
        Ok(Sequence::new(steps))
    }
}
