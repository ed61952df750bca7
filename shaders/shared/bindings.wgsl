// Binding numbers of what pieces bring along, in one table: pieces that meet in a kernel have different ones. A kernel's own
// operands have the numbers that its file says, beside these. Every kernel is given this file.
const AT_QUERY: u32 = 2u;               // query/
const AT_WEIGHTS: u32 = 2u;             // weights/
const AT_INPUT: u32 = 3u;               // input/
const AT_QKV: u32 = 3u;                 // rope_norm_gradient/
const AT_READ_KEYS: u32 = 3u;           // cache/
const AT_STATE_GAIN: u32 = 3u;          // state/
const AT_MASK_ROW: u32 = 4u;            // embedding_mask/
const AT_READ_VALUES: u32 = 4u;         // cache/
const AT_VOCABULARY: u32 = 4u;          // choice/
const AT_WRITTEN_KEYS: u32 = 4u;        // cache/
const AT_EPILOGUE_OPERAND: u32 = 5u;    // epilogue/
const AT_FIRST_MOMENT: u32 = 5u;        // moments/
const AT_INTEGERS: u32 = 5u;            // norm/
const AT_TEACHER_LOGITS: u32 = 5u;      // teacher/
const AT_WRITTEN_VALUES: u32 = 5u;      // cache/
const AT_SECOND_MOMENT: u32 = 6u;       // moments/
const AT_QUERY_GAIN: u32 = 7u;          // rope_norm/
const AT_THRESHOLDS: u32 = 7u;          // kept/
const AT_KEY_GAIN: u32 = 8u;            // rope_norm/
const AT_BATCH: u32 = 9u;               // shared/batch.wgsl
const AT_SAMPLING: u32 = 10u;           // shared/sampling.wgsl
