//! A `tokenizers::Tokenizer` from the file's vocabulary: what Hugging Face's `tokenizer.json` of the model would give.

use std::collections::{HashMap, HashSet};

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::models::bpe::{BPE, Merges};
use tokenizers::normalizers::{NFC, NormalizerWrapper, Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::{SpecialToken, TemplateProcessing};
use tokenizers::{AddedToken, Tokenizer};

use super::metadata::{Metadata, fault};
use super::pre_tokenizer::PreTokenizer;
use super::vocabulary::{Kind, Model, Vocabulary};
use crate::error::Result;

/// The character SentencePiece writes for a blank.
const BLANK: &str = "▁";
/// Longer SentencePiece pieces are a damaged file: finding how one came about takes quadratic time. Real ones have 64.
const LONGEST_PIECE: usize = 256;

/// Ids by text.
type Ids<'a> = HashMap<&'a str, u32>;

/// Builds the tokenizer of the file.
pub(super) fn build(metadata: Metadata) -> Result<Tokenizer> {
    let vocabulary = Vocabulary::read(metadata)?;
    let ids = ids(metadata, &vocabulary)?;
    let library = |error: tokenizers::Error| fault(metadata, error.to_string());
    let mut tokenizer = match vocabulary.model {
        Model::BytePairs(pre_tokenizer) => {
            byte_pairs(&ids, listed_merges(metadata, &ids)?, pre_tokenizer).map_err(library)?
        }
        Model::SentencePiece => {
            let merges = derived_merges(metadata, &vocabulary, &ids)?;
            let unknown = unknown_token(metadata, &vocabulary, &ids)?;
            let prefix = metadata.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
            sentence_piece(&ids, merges, unknown, prefix).map_err(library)?
        }
    };
    let added = vocabulary.tokens.iter().zip(&vocabulary.kinds).filter_map(|(token, kind)| {
        let special = match kind {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => false,
            Kind::Normal | Kind::Unused | Kind::Byte => return None,
        };
        // As written, in the text as it was before normalisation.
        Some(AddedToken::from(*token, special).normalized(false))
    });
    tokenizer.add_tokens(added).map_err(library)?;

    let special = vocabulary.special_tokens(metadata)?;
    let around = [special.begin.filter(|_| special.add_begin), special.end.filter(|_| special.add_end)];
    if around != [None; 2] {
        tokenizer.with_post_processor(Some(texts_with(metadata, &vocabulary, around)?));
    }
    Ok(tokenizer)
}

/// Puts the tokens that begin and end a text around it.
fn texts_with(metadata: Metadata, vocabulary: &Vocabulary, around: [Option<u32>; 2]) -> Result<TemplateProcessing> {
    // Their names within the template; their texts might mean something to it.
    const NAMES: [&str; 2] = ["begin", "end"];
    let name = |index: usize| around[index].map(|_| NAMES[index]);
    let template =
        |texts: &[&'static str]| name(0).into_iter().chain(texts.iter().copied()).chain(name(1)).collect::<Vec<_>>();
    let mut tokens = Vec::new();
    for (name, id) in NAMES.into_iter().zip(around) {
        if let Some(id) = id {
            let text = vocabulary.tokens[id as usize].to_owned();
            let token = SpecialToken::new(name.to_owned(), vec![id], vec![text]);
            tokens.push(token.map_err(|error| fault(metadata, error.to_string()))?);
        }
    }
    TemplateProcessing::builder()
        .try_single(template(&["$A"]))
        .and_then(|builder| builder.try_pair(template(&["$A", "$B"])))
        .map_err(|reason| fault(metadata, reason.to_string()))?
        .special_tokens(tokens)
        .build()
        .map_err(|error| fault(metadata, error.to_string()))
}

/// Ids by text, without padding and empty texts: no text is ever encoded to those.
fn ids<'a>(metadata: Metadata, vocabulary: &Vocabulary<'a>) -> Result<Ids<'a>> {
    let mut ids = Ids::with_capacity(vocabulary.tokens.len());
    for (id, (token, kind)) in (0u32..).zip(vocabulary.tokens.iter().zip(&vocabulary.kinds)) {
        if *kind == Kind::Unused || token.is_empty() {
            continue;
        }
        if let Some(earlier) = ids.insert(*token, id) {
            return Err(fault(metadata, format!("tokens {earlier} and {id} are both {token:?}")));
        }
    }
    Ok(ids)
}

/// The merges that the file lists, best first. Checked here, because the library trusts them.
fn listed_merges(metadata: Metadata, ids: &Ids) -> Result<Merges> {
    let lines = metadata
        .texts("tokenizer.ggml.merges")?
        .ok_or_else(|| fault(metadata, "the key tokenizer.ggml.merges is missing".to_owned()))?;
    let mut merges = Merges::with_capacity(lines.len());
    let mut seen = HashSet::with_capacity(lines.len());
    for (index, line) in lines.into_iter().enumerate() {
        // The first part is at least one character, which may itself be a blank.
        let first = line.chars().next().map_or(0, char::len_utf8);
        let (left, right) = match line[first..].find(' ') {
            Some(at) => (&line[..first + at], &line[first + at + 1..]),
            None => return Err(fault(metadata, format!("merge {index} is {line:?}, not two tokens"))),
        };
        let merged = format!("{left}{right}");
        if let Some(missing) = [left, right, &merged].into_iter().find(|part| !ids.contains_key(part)) {
            return Err(fault(metadata, format!("merge {index} ({line:?}) needs {missing:?}, which is no token")));
        }
        if seen.insert((left, right)) {
            merges.push((left.to_owned(), right.to_owned()));
        }
    }
    Ok(merges)
}

/// The merges that SentencePiece's scores imply: every way to make a piece of two others, best pieces first.
/// As Hugging Face's converter finds them, except that control tokens, bytes and the like are not made by merging.
fn derived_merges(metadata: Metadata, vocabulary: &Vocabulary, ids: &Ids) -> Result<Merges> {
    let scores = metadata
        .floats("tokenizer.ggml.scores")?
        .ok_or_else(|| fault(metadata, "the key tokenizer.ggml.scores is missing".to_owned()))?;
    if scores.len() != vocabulary.tokens.len() {
        return Err(fault(
            metadata,
            format!("tokenizer.ggml.scores has {} entries for {} tokens", scores.len(), vocabulary.tokens.len()),
        ));
    }
    let mut found: Vec<(f64, u32, u32)> = Vec::new();
    for ((piece, kind), score) in vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(scores) {
        if *kind != Kind::Normal {
            continue;
        }
        if piece.len() > LONGEST_PIECE {
            return Err(fault(metadata, format!("a piece is {} bytes long", piece.len())));
        }
        let first = found.len();
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
                found.push((score, left, right));
            }
        }
        found[first..].sort_by_key(|&(_, left, right)| (left, right));
    }
    found.sort_by(|one, other| other.0.total_cmp(&one.0));
    let text = |id: u32| vocabulary.tokens[id as usize].to_owned();
    Ok(found.into_iter().map(|(_, left, right)| (text(left), text(right))).collect())
}

/// The text of the token for what is not in the vocabulary. There must be one, or all bytes must be tokens.
fn unknown_token(metadata: Metadata, vocabulary: &Vocabulary, ids: &Ids) -> Result<Option<String>> {
    let listed = vocabulary.kinds.iter().position(|kind| *kind == Kind::Unknown);
    let unknown = match vocabulary.token(metadata, "unknown")? {
        Some(id) => Some(id as usize),
        None => listed,
    };
    let unknown = unknown.map(|id| vocabulary.tokens[id]).filter(|token| ids.contains_key(token));
    let all_bytes = (0..=u8::MAX).all(|byte| ids.contains_key(format!("<0x{byte:02X}>").as_str()));
    if unknown.is_none() && !all_bytes {
        return Err(fault(metadata, "there is neither an unknown token nor one for each byte".to_owned()));
    }
    Ok(unknown.map(str::to_owned))
}

fn byte_pairs(ids: &Ids, merges: Merges, pre_tokenizer: &PreTokenizer) -> tokenizers::Result<Tokenizer> {
    let model = bpe(ids, merges).ignore_merges(pre_tokenizer.ignore_merges).build()?;
    let mut tokenizer = Tokenizer::new(model);
    if pre_tokenizer.compose {
        tokenizer.with_normalizer(Some(NFC))?;
    }
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer.build()?));
    tokenizer.with_decoder(Some(ByteLevel::new(false, false, false)));
    Ok(tokenizer)
}

fn sentence_piece(ids: &Ids, merges: Merges, unknown: Option<String>, prefix: bool) -> tokenizers::Result<Tokenizer> {
    let mut model = bpe(ids, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown);
    }
    let mut tokenizer = Tokenizer::new(model.build()?);
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let mut decoders: Vec<DecoderWrapper> =
        vec![Replace::new(BLANK, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefix {
        normalizers.push(Prepend::new(BLANK.to_owned()).into());
        decoders.push(tokenizers::decoders::strip::Strip::new(' ', 1, 0).into());
    }
    normalizers.push(Replace::new(" ", BLANK)?.into());
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers)))?;
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    Ok(tokenizer)
}

fn bpe(ids: &Ids, merges: Merges) -> tokenizers::models::bpe::BpeBuilder {
    let vocabulary: tokenizers::models::bpe::Vocab = ids.iter().map(|(token, id)| ((*token).to_owned(), *id)).collect();
    BPE::builder().vocab_and_merges(vocabulary, merges)
}
