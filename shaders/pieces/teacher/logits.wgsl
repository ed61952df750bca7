// A teacher's logits.
const TEACHER: bool = true;
@group(0) @binding(AT_TEACHER_LOGITS) var<storage, read> teacher_logits: array<f32>;      // [rows of the chunk, vocab]

fn teacher(index: u32) -> f32 { return teacher_logits[index]; }
