//! `attention` and `attention_merge`: a few rows at the end of contexts of several lengths, and a chunk of a prompt.

use pard::Result;
use pard::checkpoint::config::Config;
use pard::low_level::gpu::{Buffer, CacheFormat, KernelPlan, Pass};
use pard::low_level::ops::{Attention, AttentionScratch, AttentionShape, KvCache, Phase, Rope, Tensor};

use crate::bench::{Bench, Case, PROMPT_ROWS, cold_copies};
use crate::oracle::attention as oracle;
use crate::oracle::kv_cache::held;
use crate::support::random::Random;

/// Positions in the cache, those of the rows included.
const CONTEXTS: [usize; 3] = [256, 1024, 4096];

/// All contexts.
pub fn all(bench: &Bench, config: &Config) -> Result<()> {
    let both = "attention + attention_merge";
    let kinds = [(both, Phase::Decode, 1), (both, Phase::Decode, 9), ("attention", Phase::Prefill, PROMPT_ROWS)];
    let wanted: Vec<_> = kinds.into_iter().filter(|(kernel, ..)| bench.wants(kernel)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    for context in CONTEXTS {
        for cache in [CacheFormat::F16, CacheFormat::Q8_0] {
            attention(bench, &KernelPlan { cache, ..bench.plan }, config, context, &wanted)?;
        }
    }
    Ok(())
}

fn attention(
    bench: &Bench,
    plan: &KernelPlan,
    config: &Config,
    context: usize,
    wanted: &[(&'static str, Phase, usize)],
) -> Result<()> {
    let (device, width) = (&bench.device, config.query_size());
    let shape = AttentionShape { heads: config.heads, kv_heads: config.kv_heads, head_dim: config.head_dim };
    let mut random = Random::new(3);
    let queries = random.normals(PROMPT_ROWS * width, 1.0);
    let (query, out) = (bench.tensor(width, &queries)?, Tensor::new(device, "out", PROMPT_ROWS, width)?);
    let scratch = AttentionScratch::new(device, plan, &shape, context)?;
    let cached = random.normals(context * shape.qkv_width(), 1.0);
    let cache_bytes = KvCache::bytes(plan.cache, &shape, context);
    let attentions = filled_caches(bench, plan, &shape, context, &cached, cold_copies(cache_bytes))?
        .iter()
        .map(|cache| Attention::new(device, plan, &bench.step, &shape, None, cache, &scratch, [&query, &out]))
        .collect::<Result<Vec<_>>>()?;
    let attentions = &attentions;
    let case = |&(kernel, role, rows): &(&'static str, Phase, usize)| Case {
        kernel,
        what: format!(
            "context {context}, {}, {} cache",
            if role == Phase::Prefill { "prompt" } else { "round" },
            plan.cache.name()
        ),
        rows,
        bytes: cache_bytes as usize + rows * 2 * width * 4,
        flops: 4 * width * (context - rows + 1..=context).sum::<usize>(),
        state: bench.at(context - rows, rows),
        record: Box::new(move |pass, repetition| {
            attentions[repetition % attentions.len()].encode(pass, role, rows, context)
        }),
    };
    let cases: Vec<Case> = wanted.iter().map(case).collect();

    let cached_heads = |first| held(plan.cache, shape.head_dim, &of_heads(&shape, &cached, first));
    let (keys, values) = (cached_heads(width), cached_heads(width + config.key_value_size()));
    for case in &cases {
        let all: Vec<f32> = bench.result(case, &out.buffer, case.rows * width)?;
        for row in [0, case.rows - 1] {
            let AttentionShape { heads, kv_heads, head_dim } = shape;
            let (start, key_tile) = (context - case.rows + row, plan.key_split as usize);
            let one =
                oracle::AttentionShape { rows: 1, heads, kv_heads, head_dim, positions: context, start, key_tile };
            let at = row * width..(row + 1) * width;
            bench.check(case, &all[at.clone()], &oracle::attention(one, &queries[at], &keys, &values));
        }
    }
    bench.time(&cases)
}

/// Caches that `rope` has filled with the keys and values of `qkv`, turned by angles of 0.
fn filled_caches(
    bench: &Bench,
    plan: &KernelPlan,
    shape: &AttentionShape,
    context: usize,
    qkv: &[f32],
    copies: usize,
) -> Result<Vec<KvCache>> {
    let device = &bench.device;
    let query = Tensor::new(device, "turned", context, shape.heads * shape.head_dim)?;
    let qkv = bench.tensor(shape.qkv_width(), qkv)?;
    let angles = [vec![1.0f32; shape.head_dim / 2], vec![0.0; shape.head_dim / 2]].concat().repeat(context);
    let angles = Buffer::with_values(device, "angles", &angles)?;
    let (step, state) = bench.at(0, context);
    step.write(device, 0, &state);
    let filled = |_| {
        let cache = KvCache::new(device, plan, shape, context)?;
        let rope = Rope::new(device, step, shape, &angles, [&qkv, &query], &cache, None)?;
        Pass::submit(device, None, |pass| {
            rope.encode(pass, context);
            Ok(())
        })?;
        Ok(cache)
    };
    let caches = (0..copies).map(filled).collect();
    device.wait()?;
    caches
}

/// The heads of qkv from column `first` on: `[kv_heads, positions, head_dim]`.
fn of_heads(shape: &AttentionShape, qkv: &[f32], first: usize) -> Vec<f32> {
    let head = |head: usize| {
        let at = first + head * shape.head_dim;
        qkv.chunks(shape.qkv_width()).flat_map(move |row| &row[at..at + shape.head_dim])
    };
    (0..shape.kv_heads).flat_map(head).copied().collect()
}
