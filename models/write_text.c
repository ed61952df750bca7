// The two parts of write_text.py that PyTorch is slow at on a CPU: attention of one new token per sequence over caches of
// unequal lengths, and the choice of the next token. HEAD (size of a head) and GROUP (query heads per key head) are set by
// the compiler's command line.

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
typedef float f32x16 __attribute__((vector_size(64), may_alias));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32), aligned(2), may_alias));

enum { LANES = 16, PARTS = HEAD / LANES };

static float widen(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

// Rounds to nearest, ties to even.
static bf16 narrow(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static f32x16 widen16(const bf16 *x) {
    return (f32x16)(__builtin_convertvector(*(const u16x16 *)x, u32x16) << 16);
}

static float sum(f32x16 x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

// Rotates a head's two halves; `turn` holds HEAD/2 cosines, then as many sines.
static void rotate(const bf16 *x, const float *turn, float scale, float *out) {
    for (int i = 0; i < HEAD / 2; i++) {
        float a = widen(x[i]), b = widen(x[i + HEAD / 2]), c = turn[i], s = turn[i + HEAD / 2];
        out[i] = (a * c - b * s) * scale;
        out[i + HEAD / 2] = (b * c + a * s) * scale;
    }
}

// qkv [slots, (GROUP + 2) * groups * HEAD]: the queries, keys and values of one new token per slot, at `position[slot]`.
// keys [slots, groups, room / 16, HEAD, 16], values [slots, groups, room, HEAD]: the caches, which take up the new token.
// out [slots, GROUP * groups * HEAD]. `room` is a multiple of 16.
void attend(int slots, int groups, int room, const int32_t *position, const float *turns, const bf16 *qkv, bf16 *keys,
            bf16 *values, bf16 *out) {
    float scores[GROUP][room] __attribute__((aligned(64)));
    for (int slot = 0; slot < slots; slot++) {
        int at = position[slot], count = at + 1;
        const float *turn = turns + (size_t)at * HEAD;
        const bf16 *row = qkv + (size_t)slot * (GROUP + 2) * groups * HEAD;
        for (int group = 0; group < groups; group++) {
            bf16 *k = keys + ((size_t)slot * groups + group) * room * HEAD;
            bf16 *v = values + ((size_t)slot * groups + group) * room * HEAD;
            float query[GROUP][HEAD], key[HEAD];
            for (int j = 0; j < GROUP; j++)
                rotate(row + (group * GROUP + j) * HEAD, turn, 1 / sqrtf(HEAD), query[j]);
            rotate(row + (GROUP * groups + group) * HEAD, turn, 1, key);
            for (int i = 0; i < HEAD; i++) k[(at / LANES * HEAD + i) * LANES + at % LANES] = narrow(key[i]);
            memcpy(v + (size_t)at * HEAD, row + ((GROUP + 1) * groups + group) * HEAD, HEAD * sizeof(bf16));

            for (int t = 0; t < count; t += LANES) {
                f32x16 total[GROUP] = {0};
                for (int i = 0; i < HEAD; i++) {
                    f32x16 x = widen16(k + (t / LANES * HEAD + i) * LANES);
                    for (int j = 0; j < GROUP; j++) total[j] += query[j][i] * x;
                }
                for (int j = 0; j < GROUP; j++) *(f32x16 *)&scores[j][t] = total[j];
            }
            float scale[GROUP];
            for (int j = 0; j < GROUP; j++) {
                float top = scores[j][0], total = 0;
                for (int t = 1; t < count; t++) top = scores[j][t] > top ? scores[j][t] : top;
                for (int t = 0; t < count; t++) total += scores[j][t] = expf(scores[j][t] - top);
                scale[j] = 1 / total;
            }
            f32x16 total[GROUP][PARTS] = {0};
            for (int t = 0; t < count; t++)
                for (int p = 0; p < PARTS; p++) {
                    f32x16 x = widen16(v + (size_t)t * HEAD + p * LANES);
                    for (int j = 0; j < GROUP; j++) total[j][p] += scores[j][t] * x;
                }
            for (int j = 0; j < GROUP; j++)
                for (int i = 0; i < HEAD; i++)
                    out[((size_t)slot * groups * GROUP + group * GROUP + j) * HEAD + i] =
                        narrow(total[j][i / LANES][i % LANES] * scale[j]);
        }
    }
}

// Chooses a token for every row. At temperature 0, all tokens whose rounded logit is near the largest are worked out again
// from `hidden` [rows, width] and the head's matrix [vocabulary, width] in f32. Else draws by `uniform` (0..1) among the
// tokens that are at least `least` times as probable as the most probable one.
void choose(int rows, int vocabulary, int width, const float *hidden, const bf16 *head, const bf16 *logits,
            const float *temperature, const float *uniform, float least, int64_t *token) {
    const float near = 0.5f;
    for (int row = 0; row < rows; row++, logits += vocabulary, hidden += width) {
        float top = -1e30f;
        for (int i = 0; i < vocabulary; i++) {
            float x = widen(logits[i]);
            top = x > top ? x : top;
        }
        if (temperature[row] == 0) {
            float best = -1e30f;
            for (int i = 0; i < vocabulary; i++) {
                if (widen(logits[i]) < top - near) continue;
                f32x16 total = {0};
                for (int j = 0; j < width; j += LANES) {
                    f32x16 x;
                    memcpy(&x, hidden + j, sizeof x);
                    total += x * widen16(head + (size_t)i * width + j);
                }
                float exact = sum(total);
                if (exact > best) best = exact, token[row] = i;
            }
            continue;
        }
        float lowest = top + temperature[row] * logf(least), total = 0;
        for (int i = 0; i < vocabulary; i++)
            if (widen(logits[i]) >= lowest) total += expf((widen(logits[i]) - top) / temperature[row]);
        float left = uniform[row] * total;
        for (int i = 0; i < vocabulary; i++) {
            if (widen(logits[i]) < lowest) continue;
            token[row] = i;
            if ((left -= expf((widen(logits[i]) - top) / temperature[row])) <= 0) break;
        }
    }
}
