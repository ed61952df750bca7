// A teacher's logits.
const TEACHER: bool = true;
@group(0) @binding(5) var<storage, read> teacher_logits: array<f32>;      // [rows of the chunk, vocab]

fn teacher(index: u32) -> f32 { return teacher_logits[index]; }
