"""Reads a draft and its target with PyTorch, and compares every proposal with those of this engine.

    pip install torch safetensors
    cargo run --release --example rounds -- TARGET DRAFT "PROMPT" 8 64 > rounds.jsonl
    python benches/reread_draft.py TARGET DRAFT rounds.jsonl

TARGET and DRAFT are folders of Llama or Qwen3 models. Everything is computed anew for each round, in float32 and without a
cache; `torch.load` opens the projection. A proposal that differs while PyTorch's two likeliest tokens are within 1e-3 of
each other counts as a tie.
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


class Model:
    """A decoder's weights in float32; a draft may take embeddings and head from its target."""

    def __init__(self, folder, target=None):
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = {name: value.float() if value.is_floating_point() else value
                        for name, value in load_file(folder / "model.safetensors").items()}
        table = "model.embed_tokens.weight"
        self.table = (target or self).weights[table] if table not in self.weights else self.weights[table]
        self.head = self.weights.get("lm_head.weight", self.table)
        if target and "lm_head.weight" not in self.weights and table not in self.weights:
            self.head = target.head
        self.vocabulary = self.weights.get("pard.vocabulary")
        if self.vocabulary is not None:
            self.head = self.head[self.vocabulary.long()]
        self.width = self.config.get("head_dim") or self.config["hidden_size"] // self.config["num_attention_heads"]
        self.frequencies = self.scaled_frequencies()

    def scaled_frequencies(self):
        powers = torch.arange(0, self.width, 2).double() / self.width
        frequencies = self.config["rope_theta"] ** -powers
        scaling = self.config.get("rope_scaling")
        if scaling is None:
            return frequencies
        assert scaling["rope_type"] == "llama3", scaling
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        share = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * (share + (1 - share) / scaling["factor"])

    def embed(self, ids, mask):
        own = self.weights.get("pard.mask_embedding")
        return torch.stack([own if own is not None and token == mask else self.table[token] for token in ids])

    def norm(self, x, name):
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"])
        return x * scale * self.weights[name]

    def turn(self, x):
        angles = (torch.arange(len(x)).double()[:, None] * self.frequencies).float()
        cosine, sine = angles.cos()[:, None], angles.sin()[:, None]
        one, other = x.chunk(2, -1)
        return torch.cat([one * cosine - other * sine, other * cosine + one * sine], -1)

    def run(self, x):
        """The logits of every row, and the states: the embeddings, those after each layer but the last, the normed."""
        heads, shared = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        causal = torch.full((len(x), len(x)), -torch.inf).triu(1)
        states = []
        for layer in range(self.config["num_hidden_layers"]):
            states.append(x)
            weight = lambda name, layer=layer: self.weights[f"model.layers.{layer}.{name}.weight"]
            y = self.norm(x, f"model.layers.{layer}.input_layernorm.weight")
            q, k, v = ((y @ weight(f"self_attn.{name}_proj").T).view(len(x), -1, self.width) for name in "qkv")
            if f"model.layers.{layer}.self_attn.q_norm.weight" in self.weights:
                q = self.norm(q, f"model.layers.{layer}.self_attn.q_norm.weight")
                k = self.norm(k, f"model.layers.{layer}.self_attn.k_norm.weight")
            q, k = self.turn(q), self.turn(k)
            k, v = (rows.repeat_interleave(heads // shared, 1) for rows in (k, v))
            scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(self.width) + causal
            attended = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).reshape(len(x), -1)
            x = x + attended @ weight("self_attn.o_proj").T
            y = self.norm(x, f"model.layers.{layer}.post_attention_layernorm.weight")
            gated = torch.nn.functional.silu(y @ weight("mlp.gate_proj").T) * (y @ weight("mlp.up_proj").T)
            x = x + gated @ weight("mlp.down_proj").T
        normed = self.norm(x, "model.norm.weight")
        return normed @ self.head.T, states + [normed]


def proposals(target, draft, projection, committed, count):
    """The draft's proposals after `committed`, and by how much each is the likeliest."""
    config = draft.config
    mask = config["pard_token"]
    x = draft.embed(committed + [mask] * (count - 1), mask)
    if projection is not None:
        states = target.run(target.table[committed])[1]
        features = torch.cat([states[layer] for layer in config["pard2_target_layers"]], -1)
        before = torch.cat([torch.zeros_like(features[:1]), features[:-1]])
        read = torch.cat([before, before[-1:].expand(count - 1, -1)])
        projected = read @ projection["target_proj.weight"].float().T
        if config["pard2_proj_bias"]:
            projected = projected + projection["target_proj.bias"].float()
        x = x + config["pard2_scale"] * projected
    logits = draft.run(x)[0][-count:]
    best = logits.topk(2, -1)
    chosen = best.indices[:, 0]
    if draft.vocabulary is not None:
        chosen = draft.vocabulary[chosen].long()
    return chosen.tolist(), (best.values[:, 0] - best.values[:, 1]).tolist()


@torch.no_grad()
def main():
    folders, recording = [Path(name) for name in sys.argv[1:3]], Path(sys.argv[3])
    target = Model(folders[0])
    draft = Model(folders[1], target)
    path = folders[1] / "warp_model.bin"
    projection = torch.load(path, weights_only=True) if "pard2_target_layers" in draft.config else None
    same = ties = 0
    rounds = [json.loads(line) for line in recording.read_text().splitlines()]
    for number, recorded in enumerate(rounds):
        expected, margins = proposals(target, draft, projection, recorded["before"], len(recorded["proposals"]))
        for index, (ours, theirs, margin) in enumerate(zip(recorded["proposals"], expected, margins)):
            if ours == theirs:
                same += 1
            elif margin < 1e-3:
                ties += 1
            else:
                sys.exit(f"round {number}, proposal {index}: {ours} here, {theirs} by PyTorch, by {margin:.4f}")
    tokens = sum(len(recorded["kept"]) for recorded in rounds)
    print(f"{same} proposals of {len(rounds)} rounds are the same, {ties} ties; {tokens / len(rounds):.2f} tokens a round")


main()
