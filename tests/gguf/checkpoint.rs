//! Tensors under their Hugging Face names, and the row order of Llama-type files undone.

use pard::Error;
use pard::checkpoint::Checkpoint;

use super::open_good;
use super::writer::{Writer, element, small_llama};

#[test]
fn tensors_have_hugging_faces_names_and_shapes() {
    let (_file, gguf) = open_good(&small_llama().counting("output.weight", &[264, 64]).bytes());
    for (name, shape) in [
        ("lm_head.weight", &[264, 64][..]),
        ("model.embed_tokens.weight", &[266, 64]),
        ("model.norm.weight", &[64]),
        ("model.layers.0.input_layernorm.weight", &[64]),
        ("model.layers.0.self_attn.q_proj.weight", &[64, 64]),
        ("model.layers.1.self_attn.k_proj.weight", &[32, 64]),
        ("model.layers.1.self_attn.v_proj.weight", &[32, 64]),
        ("model.layers.1.self_attn.o_proj.weight", &[64, 64]),
        ("model.layers.1.post_attention_layernorm.weight", &[64]),
        ("model.layers.1.mlp.gate_proj.weight", &[96, 64]),
        ("model.layers.1.mlp.up_proj.weight", &[96, 64]),
        ("model.layers.1.mlp.down_proj.weight", &[64, 96]),
    ] {
        gguf.expect(name, shape).unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(gguf.tensors().is_sorted_by_key(|tensor| &tensor.name));
    assert_eq!(gguf.tensors().len(), 21);
    assert_eq!(gguf.model_name(), Some("Small"));
}

#[test]
fn only_the_rows_asked_for_are_read() {
    let (_file, gguf) = open_good(&small_llama().bytes());
    let mut rows = vec![f32::NAN; 2 * 96];
    gguf.read_rows("model.layers.0.mlp.down_proj.weight", 3..5, &mut rows).expect("rows");
    let expected: Vec<f32> = (3 * 96..5 * 96).map(|value| value as f32).collect();
    assert_eq!(rows, expected);
    gguf.read_rows("model.layers.0.mlp.down_proj.weight", 7..7, &mut []).expect("no rows");
}

#[test]
fn quantised_rows_are_whole_blocks() {
    let mut bytes = Vec::new();
    for row in 0..3u8 {
        for block in 0..2u8 {
            bytes.extend(half::f16::ONE.to_le_bytes());
            bytes.extend([row * 10 + block; 32]);
        }
    }
    let (_file, gguf) = open_good(&Writer::default().tensor("x", &[3, 64], element::Q8_0, bytes).bytes());
    let mut row = vec![f32::NAN; 64];
    gguf.read_rows("x", 1..2, &mut row).expect("a row");
    assert_eq!(row[..32], [10.0; 32]);
    assert_eq!(row[32..], [11.0; 32]);
}

/// The converter's own words: `weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2)`.
fn reordered(rows: usize, heads: usize) -> Vec<usize> {
    let half = rows / heads / 2;
    let mut order = Vec::new();
    for head in 0..heads {
        for pair in 0..half {
            for part in 0..2 {
                order.push((head * 2 + part) * half + pair);
            }
        }
    }
    order
}

/// Rows of four columns, `order[row]` in each, as F16.
fn rows_of(order: &[usize]) -> Vec<u8> {
    order.iter().flat_map(|row| [half::f16::from_f32(*row as f32); 4]).flat_map(half::f16::to_le_bytes).collect()
}

#[test]
fn rows_and_biases_of_llamas_queries_and_keys_are_put_back() {
    for (architecture, restored) in [("llama", true), ("mistral", true), ("qwen2", false), ("qwen3", false)] {
        let (query, key) = (reordered(96, 3), reordered(32, 1));
        let bias: Vec<u8> = query.iter().flat_map(|row| (*row as f32).to_le_bytes()).collect();
        let writer = Writer::default()
            .key("general.architecture", architecture)
            .key(&format!("{architecture}.attention.head_count"), 3)
            .key(&format!("{architecture}.attention.head_count_kv"), 1)
            .tensor("blk.7.attn_q.weight", &[96, 4], element::F16, rows_of(&query))
            .tensor("blk.7.attn_q.bias", &[96], element::F32, bias)
            .tensor("blk.7.attn_k.weight", &[32, 4], element::F16, rows_of(&key))
            .tensor("blk.7.attn_v.weight", &[32, 4], element::F16, rows_of(&key));
        let (_file, gguf) = open_good(&writer.bytes());
        let first_column = |name: &str, rows: std::ops::Range<usize>| -> Vec<usize> {
            let mut values = vec![f32::NAN; rows.len() * 4];
            gguf.read_rows(name, rows, &mut values).expect("rows");
            values.chunks(4).map(|row| row[0] as usize).collect()
        };
        let order = |stored: &[usize]| if restored { (0..stored.len()).collect() } else { stored.to_vec() };
        assert_eq!(first_column("model.layers.7.self_attn.q_proj.weight", 0..96), order(&query), "{architecture}");
        assert_eq!(first_column("model.layers.7.self_attn.q_proj.weight", 20..50), order(&query)[20..50]);
        assert_eq!(first_column("model.layers.7.self_attn.k_proj.weight", 0..32), order(&key));
        assert_eq!(first_column("model.layers.7.self_attn.v_proj.weight", 0..32), key);
        let bias = gguf.read_vector("model.layers.7.self_attn.q_proj.bias", 96).expect("a bias");
        assert_eq!(bias.iter().map(|value| *value as usize).collect::<Vec<_>>(), order(&query));
    }
}

#[test]
fn wrong_requests_are_errors() {
    let (_file, gguf) = open_good(&small_llama().bytes());
    let mut row = vec![0.0; 64];
    let name = "model.norm.weight";
    assert!(
        matches!(gguf.read_rows("nothing", 0..1, &mut row), Err(Error::MissingTensor { name, .. }) if name == "nothing")
    );
    assert!(matches!(gguf.read_rows(name, 0..2, &mut row), Err(Error::Damaged { .. })));
    #[expect(clippy::reversed_empty_ranges, reason = "the request under test")]
    let reversed = 1..0;
    assert!(matches!(gguf.read_rows(name, reversed, &mut []), Err(Error::Damaged { .. })));
    assert!(matches!(gguf.read_rows(name, 0..1, &mut row[1..]), Err(Error::Shape { .. })));
    assert!(matches!(gguf.expect(name, &[65]), Err(Error::TensorShape { .. })));
}

#[test]
fn heads_that_do_not_divide_the_rows_are_an_error() {
    let writer = small_llama().key("llama.attention.head_count", 5);
    let (_file, gguf) = super::open(&writer.bytes());
    let message = gguf.err().expect("a fault").to_string();
    assert!(message.contains("blk.0.attn_q.weight") && message.contains("5 heads"), "{message}");
}
