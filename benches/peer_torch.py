"""Times passes of the shapes of `pard report` in PyTorch on a CUDA device: eager and compiled, with a static cache.

    python benches/peer_torch.py [SHAPE...] >torch.json

Weights are random and in bfloat16; a few layers take turns in place of all, as in `pard report`. Prints JSON.
"""

import json
import statistics
import sys
import time

import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

# hidden, layers, heads, key-value heads, head width, feed-forward width, vocabulary, whether q and k are normalised
SHAPES = {
    "SmolLM2-135M": (576, 30, 9, 3, 64, 1536, 49152, False),
    "Qwen3-0.6B": (1024, 28, 16, 8, 128, 3072, 151936, True),
    "Qwen3-8B": (4096, 36, 32, 8, 128, 12288, 151936, True),
    "Llama-3.1-8B": (4096, 32, 32, 8, 128, 14336, 128256, False),
}
ROWS = [1, 2, 4, 8, 9, 13, 16, 32]
POSITIONS = 64
DISTINCT_BYTES = 1 << 30
RUNS = 9
AHEAD = 8


class Layer:
    def __init__(self, hidden, heads, kv_heads, width, inner, normed):
        def matrix(out, depth):
            return torch.randn(out, depth, device="cuda", dtype=torch.bfloat16) / depth**0.5

        self.heads, self.kv_heads, self.width, self.normed = heads, kv_heads, width, normed
        self.qkv = matrix((heads + 2 * kv_heads) * width, hidden)
        self.output = matrix(hidden, heads * width)
        self.gate_up = matrix(2 * inner, hidden)
        self.down = matrix(hidden, inner)
        self.keys, self.values = torch.zeros(2, 1, kv_heads, POSITIONS, width, device="cuda", dtype=torch.bfloat16)

    def bytes(self):
        return 2 * sum(matrix.numel() for matrix in (self.qkv, self.output, self.gate_up, self.down))

    def forward(self, x, angles, mask):
        rows = x.shape[0]
        sizes = [self.heads, self.kv_heads, self.kv_heads]
        states = (rms_norm(x, x.shape[1:]) @ self.qkv.T).view(1, rows, -1, self.width).transpose(1, 2)
        query, key, value = states.split(sizes, 1)
        if self.normed:
            query, key = rms_norm(query, query.shape[3:]), rms_norm(key, key.shape[3:])
        query, key = turned(query, angles), turned(key, angles)
        self.keys[:, :, :rows] = key
        self.values[:, :, :rows] = value
        attended = scaled_dot_product_attention(query, self.keys, self.values, mask, enable_gqa=True)
        x = x + attended.transpose(1, 2).reshape(rows, -1) @ self.output.T
        gate, up = (rms_norm(x, x.shape[1:]) @ self.gate_up.T).chunk(2, 1)
        return x + (silu(gate) * up) @ self.down.T


def turned(x, angles):
    cosine, sine = angles
    one, two = x.chunk(2, 3)
    return torch.cat((one * cosine - two * sine, two * cosine + one * sine), 3)


class Model:
    def __init__(self, hidden, layers, heads, kv_heads, width, inner, vocabulary, normed):
        first = Layer(hidden, heads, kv_heads, width, inner, normed)
        distinct = min(layers, max(2, -(-DISTINCT_BYTES // first.bytes())))
        self.distinct = [first] + [Layer(hidden, heads, kv_heads, width, inner, normed) for _ in range(distinct - 1)]
        self.layers = [self.distinct[index % distinct] for index in range(layers)]
        self.embedding = torch.randn(vocabulary, hidden, device="cuda", dtype=torch.bfloat16) / hidden**0.5
        turns = torch.arange(POSITIONS, device="cuda")[:, None] * 1e-4 ** (torch.arange(width // 2, device="cuda") / width * 2)
        self.cosine, self.sine = (turns.cos().bfloat16(), turns.sin().bfloat16())

    def forward(self, ids):
        rows = ids.shape[0]
        at = torch.arange(POSITIONS, device="cuda")
        mask = at[None, :] <= at[:rows, None]
        x = self.embedding[ids]
        for layer in self.layers:
            x = layer.forward(x, (self.cosine[:rows], self.sine[:rows]), mask)
        return (rms_norm(x, x.shape[1:]) @ self.embedding.T).argmax(1)


def timed(forward, ids):
    for _ in range(3):
        forward(ids)
    torch.cuda.synchronize()
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        for _ in range(AHEAD):
            forward(ids)
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / AHEAD)
    return {"seconds": statistics.median(times), "least": min(times), "most": max(times), "runs": RUNS}


@torch.inference_mode()
def main():
    names = sys.argv[1:] or list(SHAPES)
    unknown = [name for name in names if name not in SHAPES]
    if unknown:
        sys.exit(f"no shape {unknown[0]!r}; there are {', '.join(SHAPES)}")
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA device")
    report = {"peer": f"PyTorch {torch.__version__}", "device": torch.cuda.get_device_name(), "passes": []}
    for name in names:
        model = Model(*SHAPES[name])
        for mode, forward in [
            ("eager", model.forward),
            ("compiled", torch.compile(model.forward, mode="max-autotune-no-cudagraphs")),
            ("compiled, graphs", torch.compile(model.forward, mode="reduce-overhead")),
        ]:
            try:
                times = [
                    {"rows": rows, **timed(forward, torch.arange(rows, device="cuda"))}
                    for rows in (ROWS if mode == "eager" else [1, 8, 13])
                ]
            except Exception as error:
                print(f"{name}, {mode}: {error}", file=sys.stderr)
                continue
            report["passes"].append({"shape": name, "format": "bf16", "mode": mode, "times": times})
        del model
        torch.cuda.empty_cache()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
