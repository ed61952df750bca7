//! The kernels that take each row by itself: `embedding`, `rms_norm`, `remember` and `recall`, `rope`, `argmax`.

use pard::Result;
use pard::checkpoint::config::Config;
use pard::low_level::gpu::Buffer;
use pard::low_level::ops::{
    Argmax, AttentionShape, Embedding, Keep, KeptStates, KvCache, MAX_ROWS, Matrix, PassRow, Recall, Remember, RmsNorm,
    Rope, RopeGains, RowRange, Tensor, WeightFormat,
};

use crate::bench::{Bench, Case, PROMPT_ROWS, each};
use crate::matmul::weights;
use crate::oracle;
use crate::support::random::Random;

/// A token, a verification, a chunk of a prompt.
const ROW_COUNTS: [usize; 3] = [1, 9, PROMPT_ROWS];

/// Rows of the embedding table in BF16.
pub fn embedding(bench: &Bench, config: &Config) -> Result<()> {
    if !bench.wants("embedding") {
        return Ok(());
    }
    let (device, width, vocab) = (&bench.device, config.hidden_size, config.vocab_size);
    let table = Matrix::upload(device, &bench.plan, "table", WeightFormat::Bf16, [vocab, width], &weights)?;
    let ids = Random::new(4).indices(PROMPT_ROWS, vocab);
    let id_buffer = Buffer::with_values(device, "ids", &ids)?;
    let y = Tensor::new(device, "y", PROMPT_ROWS, width)?;
    let op = &Embedding::new(device, &table, None, &id_buffer, &y)?;
    let cases = ROW_COUNTS.map(|rows| Case {
        kernel: "embedding",
        what: format!("{vocab} x {width}, bf16"),
        rows,
        bytes: rows * width * (2 + 4),
        flops: 0,
        state: bench.at(0, rows),
        record: each(move |pass| op.encode(pass, rows)),
    });
    // The oracle's table holds only the rows that are asked for.
    let mut rows = vec![0.0; PROMPT_ROWS * width];
    for (&id, out) in ids.iter().zip(rows.chunks_mut(width)) {
        weights(id as usize..id as usize + 1, out)?;
    }
    let in_order: Vec<u32> = (0..PROMPT_ROWS as u32).collect();
    let expected = oracle::embedding::embedding(&rows, width, &in_order);
    for case in &cases {
        bench.check(case, &bench.result(case, &y.buffer, case.rows * width)?, &expected);
    }
    bench.time(&cases)
}

/// The residual stream.
pub fn rms_norm(bench: &Bench, config: &Config) -> Result<()> {
    if !bench.wants("rms_norm") {
        return Ok(());
    }
    let (width, epsilon) = (config.hidden_size, config.norm_epsilon as f32);
    let mut random = Random::new(5);
    let (input, gain) = (random.normals(PROMPT_ROWS * width, 1.0), random.normals(width, 1.0));
    let (x, y) = (bench.tensor(width, &input)?, Tensor::new(&bench.device, "y", PROMPT_ROWS, width)?);
    let gains = Tensor::vector(&bench.device, "gain", &gain)?;
    let op = &RmsNorm::new(&bench.device, &bench.step, [&x, &y], &gains, epsilon, RowRange::All)?;
    let cases = ROW_COUNTS.map(|rows| Case {
        kernel: "rms_norm",
        what: format!("width {width}"),
        rows,
        bytes: rows * width * 8 + width * 4,
        flops: 4 * rows * width,
        state: bench.at(0, rows),
        record: each(move |pass| op.encode(pass, rows)),
    });
    let expected = oracle::rms_norm::rms_norm(&input, &gain, epsilon);
    for case in &cases {
        bench.check(case, &bench.result(case, &y.buffer, case.rows * width)?, &expected);
    }
    bench.time(&cases)
}

/// States of four layers of a target as features, and their projections as they are kept and read back.
pub fn target_states(bench: &Bench, config: &Config) -> Result<()> {
    if !["remember", "keep", "recall"].iter().any(|kernel| bench.wants(kernel)) {
        return Ok(());
    }
    const LAYERS: usize = 4;
    let (device, width) = (&bench.device, config.hidden_size);
    let input = Random::new(7).normals(PROMPT_ROWS * width, 1.0);
    let x = bench.tensor(width, &input)?;
    let y = Tensor::new(device, "y", PROMPT_ROWS + 1, width)?;
    let features = Tensor::new(device, "features", PROMPT_ROWS, LAYERS * width)?;
    let states = KeptStates::new(device, [1, PROMPT_ROWS + 1], &vec![0.0; width])?;
    let session = Buffer::with_values(device, "session", &[PROMPT_ROWS as u32; 3])?;
    let remember = (0..LAYERS).map(|layer| Remember::new(device, &x, None, 0.02, &features, layer));
    let remember = &remember.collect::<Result<Vec<_>>>()?;
    let keep = &Keep::new(device, &bench.step, &x, &states)?;
    let recall = &Recall::new(device, &bench.step, &session, &states, true, &y)?;
    let what = format!("{LAYERS} layers of width {width}");
    let remembered = ROW_COUNTS.map(|rows| Case {
        kernel: "remember",
        what: what.clone(),
        rows,
        bytes: LAYERS * rows * width * 8,
        flops: LAYERS * 2 * rows * width,
        state: bench.at(0, rows),
        record: each(move |pass| remember.iter().for_each(|op| op.encode(pass, rows))),
    });
    let kept = ROW_COUNTS.map(|rows| Case {
        kernel: "keep",
        what: format!("width {width}"),
        rows,
        bytes: rows * width * 8,
        flops: 0,
        state: bench.at(0, rows),
        record: each(move |pass| keep.encode(pass, rows)),
    });
    let recalled = ROW_COUNTS.map(|rows| Case {
        kernel: "recall",
        what: format!("width {width}"),
        rows,
        bytes: rows * width * 12,
        flops: rows * width,
        state: bench.at(1, rows),
        record: each(move |pass| recall.encode(pass, rows)),
    });
    for cases in [&remembered, &kept, &recalled] {
        if bench.wants(cases[0].kernel) {
            bench.time(cases)?;
        }
    }
    let last = &remembered[remembered.len() - 1];
    let mut expected = oracle::Expected::default();
    for row in input.chunks(width) {
        let of_row = oracle::remember::remember(row, None, 0.02);
        for _ in 0..LAYERS {
            expected.values.extend(&of_row.values);
            expected.bound.extend(&of_row.bound);
        }
    }
    bench.check(last, &bench.result(last, &features.buffer, last.rows * LAYERS * width)?, &expected);
    Ok(())
}

/// q, k and v, with and without the norm of heads. Queries are checked here, keys and values where attention reads them.
pub fn rope(bench: &Bench, config: &Config) -> Result<()> {
    if !bench.wants("rope") {
        return Ok(());
    }
    let (device, plan, epsilon) = (&bench.device, &bench.plan, config.norm_epsilon as f32);
    let &Config { heads, kv_heads, head_dim, .. } = config;
    let shape = AttentionShape { heads, kv_heads, head_dim };
    let (start, positions) = (700, 1024);
    let mut random = Random::new(6);
    let input = random.normals(PROMPT_ROWS * shape.qkv_width(), 1.0);
    let [query, key] = [0, 1].map(|_| random.normals(head_dim, 1.0));
    let turns = random.normals(positions * head_dim / 2, 3.0);
    let cos: Vec<f32> = turns.iter().map(|angle| angle.cos()).collect();
    let sin: Vec<f32> = turns.iter().map(|angle| angle.sin()).collect();
    let both = cos.chunks(head_dim / 2).zip(sin.chunks(head_dim / 2));
    let angles = Buffer::with_values(device, "angles", &both.flat_map(|(a, b)| [a, b].concat()).collect::<Vec<_>>())?;
    let qkv = bench.tensor(shape.qkv_width(), &input)?;
    let width = config.query_size();
    let out = Tensor::new(device, "query", PROMPT_ROWS, width)?;
    let cache = KvCache::new(device, plan, &shape, positions)?;
    let queries: Vec<f32> = input.chunks(shape.qkv_width()).flat_map(|row| &row[..width]).copied().collect();
    let at: Vec<u32> = (start as u32..).take(PROMPT_ROWS).collect();
    let query_gain = Tensor::vector(device, "query gain", &query)?;
    let key_gain = Tensor::vector(device, "key gain", &key)?;
    let gains = RopeGains { query: &query_gain, key: &key_gain, epsilon };
    for (what, gains) in [("heads", None), ("normalised heads", Some(gains))] {
        let op = &Rope::new(device, &bench.step, &shape, &angles, [&qkv, &out], &cache, gains)?;
        let turned = width + config.key_value_size();
        let cases = ROW_COUNTS.map(|rows| Case {
            kernel: "rope",
            what: format!("{heads} + 2 x {kv_heads} {what} of {head_dim}"),
            rows,
            bytes: rows
                * (4 * (shape.qkv_width() + width + head_dim) + 2 * config.kv_heads * plan.cache.row_bytes(head_dim)),
            flops: rows * turned * if gains.is_some() { 7 } else { 3 },
            state: bench.at(start, rows),
            record: each(move |pass| op.encode(pass, rows)),
        });
        let norm = gains.map(|_| (&query[..], epsilon));
        let expected = oracle::rope::rope(&queries, heads, head_dim, &at, (&cos, &sin), norm);
        for case in &cases {
            bench.check(case, &bench.result(case, &out.buffer, case.rows * width)?, &expected);
        }
        bench.time(&cases)?;
    }
    Ok(())
}

/// The choice among the head's logits.
pub fn argmax(bench: &Bench, config: &Config) -> Result<()> {
    let kernel = "argmax + argmax_merge";
    if !bench.wants(kernel) {
        return Ok(());
    }
    let (device, vocab) = (&bench.device, config.vocab_size);
    let input = Random::new(8).normals(MAX_ROWS * vocab, 1.0);
    let logits = bench.tensor(vocab, &input)?;
    let choices = Buffer::storage(device, "choices", MAX_ROWS as u64 * 4)?;
    let batch = PassRow::buffer(device)?;
    batch.write(device, 0, &PassRow::of_one(0, 0, 0));
    let op = &Argmax::new(device, [&bench.step, &batch], None, 0, &logits, vocab, None, &choices)?;
    let cases = [1, 9, MAX_ROWS].map(|rows| Case {
        kernel,
        what: format!("vocabulary of {vocab}"),
        rows,
        bytes: rows * vocab * 4,
        flops: 0,
        state: bench.at(0, rows),
        record: each(move |pass| op.encode(pass, rows)),
    });
    let expected = oracle::argmax::argmax(&input, vocab);
    for case in &cases {
        let actual: Vec<u32> = bench.result(case, &choices, case.rows)?;
        assert_eq!(actual, expected[..case.rows], "{kernel}, {} rows", case.rows);
    }
    bench.time(&cases)
}
