"""Trains the PARD-2 draft of SmolLM2-135M-Instruct on a CPU: one or two layers that read their target's normed states.

    pip install torch safetensors tokenizers numpy
    python train_draft.py MODEL_FOLDER DRAFT_FOLDER text.jsonl --minutes 45
    python train_draft.py MODEL_FOLDER DRAFT_FOLDER text.jsonl --minutes 45 --init DRAFT --layers 2

The text is that of `write_text.py`. The target reads it once, and its states lie in DRAFT_FOLDER/states.npy (1.2 kB a
token), so that each reading costs the draft's passes alone. Matrices are multiplied in bfloat16, which is fast where a CPU
has instructions for it. `pard adapt` does the same on any adapter, reading the target anew each time; this script is for
machines without a GPU.

The loss is PARD-2's (arXiv:2605.08632): the divergence from the target plus a tenth of the cross-entropy, each row by the
chance that the tokens before it are written. Masks are laid out and dropped as in arXiv:2504.18583.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
BEFORE = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
END = "<|im_end|>"
AFTER = END + "\n<|im_start|>assistant\n"
LONGEST = 352
HELD_OUT = 50  # one conversation in so many is not learnt from
SEGMENTS, KEEP, LEAST = 4, 0.6, 0.1
MATRICES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
PARTS = MATRICES + ["input_layernorm", "post_attention_layernorm"]
BF16 = torch.bfloat16


class Decoder:
    """The forward pass of a Llama model, over padded batches."""

    def __init__(self, config, weights):
        self.heads, self.shared = config["num_attention_heads"], config["num_key_value_heads"]
        self.width, self.epsilon = config["head_dim"], config["rms_norm_eps"]
        powers = torch.arange(0, self.width, 2).double() / self.width
        angles = torch.outer(torch.arange(LONGEST + 16).double(), config["rope_theta"] ** -powers)
        self.cosines, self.sines = angles.cos().float(), angles.sin().float()
        self.weights = weights

    def norm(self, x, name):
        return F.rms_norm(x, x.shape[-1:], self.weights[name], self.epsilon)

    def turn(self, x, positions):
        cosines, sines = self.cosines[positions][:, None], self.sines[positions][:, None]
        one, other = x.float().chunk(2, -1)
        return torch.cat([one * cosines - other * sines, other * cosines + one * sines], -1).to(BF16)

    def run(self, x, positions, layers, mask=None):
        """What `layers` layers and the final norm make of the rows `x`, [batch, rows, hidden]."""
        batch, rows, _ = x.shape
        for layer in range(layers):
            product = lambda y, name, layer=layer: F.linear(y, self.weights[f"model.layers.{layer}.{name}.weight"].to(BF16))
            y = self.norm(x, f"model.layers.{layer}.input_layernorm.weight").to(BF16)
            heads = (product(y, f"self_attn.{name}_proj").view(batch, rows, -1, self.width).transpose(1, 2) for name in "qkv")
            q, k, v = heads
            q, k = self.turn(q, positions), self.turn(k, positions)
            k, v = (part.repeat_interleave(self.heads // self.shared, 1) for part in (k, v))
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
            x = x + product(y.transpose(1, 2).reshape(batch, rows, -1), "self_attn.o_proj").float()
            y = self.norm(x, f"model.layers.{layer}.post_attention_layernorm.weight").to(BF16)
            y = F.silu(product(y, "mlp.gate_proj")) * product(y, "mlp.up_proj")
            x = x + product(y, "mlp.down_proj").float()
        return self.norm(x, "model.norm.weight")


def read_text(path, tokenizer, share):
    """Tokens of the conversations, where each begins, the length of its prompt, and which are held out."""
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    samples, held_out = [], []
    for number, line in enumerate(path.read_text().splitlines()):
        is_held_out = number % HELD_OUT == 7
        if not is_held_out and number * 0.618034 % 1 >= share:
            continue
        line = json.loads(line)
        question, answer = (message["content"] for message in line["messages"])
        prompt = encode(BEFORE + question + AFTER)
        tokens = prompt + encode(answer) + (encode(END) if line["finish_reason"] == "stop" else [])
        tokens = tokens[:LONGEST]
        if len(prompt) < len(tokens) - 2:
            samples.append((tokens, len(prompt)))
            held_out.append(is_held_out)
    starts = np.cumsum([0] + [len(tokens) for tokens, _ in samples])
    tokens, prompts = np.concatenate([tokens for tokens, _ in samples]), np.array([prompt for _, prompt in samples])
    return tokens, starts, prompts, np.array(held_out)


@torch.no_grad()
def write_states(path, decoder, layers, table, tokens, starts):
    """Writes the target's normed state of every token, in bfloat16."""
    states = np.lib.format.open_memmap(path, "w+", np.int16, (len(tokens), table.shape[1]))
    lengths = starts[1:] - starts[:-1]
    order = np.argsort(lengths, kind="stable")
    first, begin = 0, time.time()
    while first < len(order):
        size = max(1, min(64, 4096 // lengths[order[min(first + 63, len(order) - 1)]]))
        chosen = order[first:first + size]
        ids = torch.zeros(len(chosen), lengths[chosen].max(), dtype=torch.long)
        for row, sample in enumerate(chosen):
            ids[row, :lengths[sample]] = torch.from_numpy(tokens[starts[sample]:starts[sample + 1]])
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        made = decoder.run(table[ids], positions, layers).to(BF16).view(torch.int16).numpy()
        for row, sample in enumerate(chosen):
            states[starts[sample]:starts[sample + 1]] = made[row, :lengths[sample]]
        if first // 1000 != (first + size) // 1000:
            print(f"states of {first + size} of {len(order)} conversations, {time.time() - begin:.0f} s", flush=True)
        first += size
    states.flush()


def lay_out(length, prompt, segments, keep, random):
    """Rows of a conversation: the last token that each sees, and the masks that follow it there."""
    rows = [(anchor, 0) for anchor in range(length - 1)]
    kept = np.arange(prompt - 1, length - 1)
    count = len(kept)
    for segment in range(1, segments):
        kept = kept[kept + segment < length - 1]
        wanted = max(1, round(count * max(keep**segment, LEAST)))
        if len(kept) == 0:
            break
        kept = np.sort(random.choice(kept, min(wanted, len(kept)), replace=False))
        rows += [(anchor, segment) for anchor in kept]
    return torch.tensor(rows)


def first_weights(config, weights, table, init, layers):
    """Weights to begin with: those of the draft in `init` or, without one, the target's final norm and no projection.

    Layers that `init` lacks are the target's last one. Those after the first add nothing to their input at first, so that
    a draft proposes what it did before they were added.
    """
    hidden, last = table.shape[1], config["num_hidden_layers"] - 1
    made = {"model.norm.weight": weights["model.norm.weight"].clone(), "mask": table.mean(0),
            "projection": torch.zeros(hidden, hidden)}
    if init:
        made.update((name, value.float()) for name, value in load_file(init / "model.safetensors").items())
        made.pop("pard.vocabulary")
        made["mask"] = made.pop("pard.mask_embedding").view(hidden)
        made["projection"] = torch.load(init / "warp_model.bin", weights_only=True)["target_proj.weight"].float()
    for layer in range(layers):
        if f"model.layers.{layer}.{PARTS[0]}.weight" not in made:
            for part in PARTS:
                value = weights[f"model.layers.{last}.{part}.weight"].clone()
                adds = layer > 0 and part in ("self_attn.o_proj", "mlp.down_proj")
                made[f"model.layers.{layer}.{part}.weight"] = torch.zeros_like(value) if adds else value
    return made


class Trainer:
    def __init__(self, folder, target, table, text, arguments):
        config, weights = target
        self.tokens, self.starts, self.prompts, held_out = text
        self.table = table
        self.states = np.load(folder / "states.npy", mmap_mode="r")
        self.random = np.random.default_rng(arguments.seed)
        torch.manual_seed(arguments.seed)
        self.held_out, self.learnt = np.flatnonzero(held_out)[:100], np.flatnonzero(~held_out)
        counts = np.zeros(len(table), np.int64)
        for sample in self.learnt:
            answer = slice(self.starts[sample] + self.prompts[sample], self.starts[sample + 1])
            np.add.at(counts, self.tokens[answer], 1)
        frequent = np.argsort(-counts, kind="stable")[:arguments.vocabulary]
        self.vocabulary = torch.from_numpy(np.union1d(frequent, [0, 1, 2]))
        self.index = torch.full((len(table),), -1)
        self.index[self.vocabulary] = torch.arange(len(self.vocabulary))
        self.head = table[self.vocabulary].to(BF16)
        self.layers = arguments.layers
        made = first_weights(config, weights, table, arguments.init, arguments.layers)
        self.draft = {name: torch.nn.Parameter(value) for name, value in made.items()}
        self.decoder = Decoder(config, self.draft)

    def states_of(self, rows):
        return torch.from_numpy(np.ascontiguousarray(self.states[rows])).view(BF16)

    def run(self, samples, segments, keep):
        """Logits of the rows that have a label, the target's, the label, the row's weight, and what chains need."""
        starts, prompts = self.starts, self.prompts
        layouts = [lay_out(starts[s + 1] - starts[s], prompts[s], segments, keep, self.random) for s in samples]
        shape = len(samples), max(map(len, layouts))
        empty = lambda value, kind=torch.long: torch.full(shape, value, dtype=kind)
        ids, positions, reads, labels, place, before, segment = (empty(v) for v in (-1, 0, -1, -1, 0, -1, 0))
        mask = torch.eye(shape[1], dtype=torch.bool).repeat(shape[0], 1, 1)
        for row, (sample, layout) in enumerate(zip(samples, layouts)):
            count, first, prompt = len(layout), int(starts[sample]), int(prompts[sample])
            tokens = torch.from_numpy(self.tokens[first:starts[sample + 1]].astype(np.int64))
            anchor, masks = layout.T
            is_token = masks == 0
            ids[row, :count] = torch.where(is_token, tokens[anchor], -1)
            positions[row, :count], segment[row, :count] = anchor + masks, masks
            # Masks read what the token before them reads: the state of the token before that one.
            reads[row, :count] = torch.where(anchor > 0, first + anchor - 1, -1)
            labels[row, :count] = torch.where(anchor + masks + 1 >= prompt, tokens[anchor + masks + 1], -1)
            place[row, :count] = first + anchor + masks
            chain = ~is_token & (anchor == anchor[:, None]) & (masks <= masks[:, None])
            mask[row, :count, :count] = is_token & (anchor <= anchor[:, None]) | chain
            index = {pair: number for number, pair in enumerate(map(tuple, layout.tolist()))}
            before[row, :count] = torch.tensor([index.get((a, m - 1), -1) if m else -1 for a, m in layout.tolist()])
        x = torch.where((ids >= 0)[..., None], self.table[ids.clamp(min=0)], self.draft["mask"])
        read = self.states_of(reads.clamp(min=0).numpy().ravel()).view(*shape, -1) * (reads >= 0)[..., None]
        x = x + F.linear(read.to(BF16), self.draft["projection"].to(BF16)).float()
        y = self.decoder.run(x, positions, self.layers, mask[:, None])
        chosen = (labels >= 0).nonzero(as_tuple=True)
        logits = F.linear(y[chosen].to(BF16), self.head).float()
        with torch.no_grad():
            target = F.linear(self.states_of(place[chosen].numpy()), self.head).float().log_softmax(-1)
            label = self.index[labels[chosen]]
            chance = torch.zeros(shape)
            chance[chosen] = torch.where(label >= 0, target.gather(1, label.clamp(min=0)[:, None])[:, 0].exp(), 0.0)
            weight, last = torch.ones(shape), before.clamp(min=0)
            for number in range(1, segments):
                reached = weight.gather(1, last) * chance.gather(1, last)
                weight = torch.where((segment == number) & (before >= 0), reached, weight)
        return logits, target, label, weight[chosen], (labels, before, segment, chosen)

    @torch.no_grad()
    def measure(self):
        """Tokens per round on held-out conversations at K = 8, and the share of rounds in which each proposal is accepted."""
        accepted, rounds = np.zeros(8), 0
        for first in range(0, len(self.held_out), 10):
            logits, _, label, _, (labels, before, segment, chosen) = self.run(self.held_out[first:first + 10], 8, 1.0)
            right = torch.zeros(labels.shape, dtype=torch.bool)
            right[chosen] = logits.argmax(-1) == label
            for number in range(8):
                if number:
                    right = torch.where(segment == number, right & right.gather(1, before.clamp(min=0)), right)
                accepted[number] += (right & (segment == number) & (labels >= 0)).sum().item()
            rounds += ((segment == 0) & (labels >= 0)).sum().item()
        shares = accepted / rounds
        return f"held out: {1 + shares.sum():.2f} tokens per round, accepted {' '.join(f'{100 * s:.0f}' for s in shares)} %"

    def batches(self, tokens):
        """Batches of conversations of similar length, in a random order."""
        lengths = self.starts[1:] - self.starts[:-1]
        order, batches = self.random.permutation(self.learnt), []
        for first in range(0, len(order), 400):
            some = order[first:first + 400]
            batch = []
            for sample in some[np.argsort(lengths[some])]:
                batch.append(sample)
                if lengths[batch].sum() >= tokens:
                    batches.append(batch)
                    batch = []
            batches += [batch] if batch else []
        return [batches[index] for index in self.random.permutation(len(batches))]

    def train(self, arguments, config):
        optimizer = torch.optim.AdamW(self.draft.values(), lr=arguments.lr, weight_decay=0.0, betas=(0.9, 0.95), fused=True)
        begin, step, read = time.time(), 0, 0
        while True:
            for batch in self.batches(arguments.batch_tokens):
                done = (time.time() - begin) / (60 * arguments.minutes)
                if done >= 1:
                    return
                for group in optimizer.param_groups:
                    fall = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done))
                    group["lr"] = arguments.lr * min(1, (step + 1) / 50) * fall
                logits, target, label, weight, _ = self.run(np.array(batch), SEGMENTS, KEEP)
                ours = logits.log_softmax(-1)
                divergence = (target.exp() * (target - ours)).sum(-1)
                surprise = torch.where(label >= 0, -ours.gather(1, label.clamp(min=0)[:, None])[:, 0], 0.0)
                loss = (weight * (divergence + 0.1 * surprise)).sum() / weight.sum().clamp(min=1e-6)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.draft.values(), 1.0)
                optimizer.step()
                step += 1
                read += sum(int(self.starts[sample + 1] - self.starts[sample]) for sample in batch)
                if step % 200 == 0:
                    print(f"step {step}, {read} tokens, {read / (time.time() - begin):.0f}/s, loss {loss:.3f}", flush=True)
                if step % 4000 == 0:
                    print(self.measure(), flush=True)
                    write_draft(arguments.draft, config, self)


def write_draft(folder, config, trainer):
    """Writes the folder as `pard` and AMD's code read it."""
    hidden = config["hidden_size"]
    config = {key: value for key, value in config.items() if not key.endswith("_token_id")}
    config.update(num_hidden_layers=trainer.layers, shared_embeddings=True, pard_token=config["vocab_size"], spd_type="pard2", pard2=True,
                  pard2_target_layers=[-1], pard2_target_dim=hidden, pard2_scale=1.0, pard2_proj_bias=False)
    (folder / "config.json").write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")
    draft = {name: value.data.to(BF16) for name, value in trainer.draft.items()}
    projection = draft.pop("projection")
    draft["pard.mask_embedding"] = draft.pop("mask")
    draft["pard.vocabulary"] = trainer.vocabulary.to(torch.int32)
    save_file(draft, folder / "model.safetensors", {"format": "pt"})
    torch.save({"target_proj.weight": projection}, folder / "warp_model.bin")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("draft", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--init", type=Path, help="draft to go on from; without it, layers begin as the target's last one")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="of the conversations, for less time and memory")
    parser.add_argument("--vocabulary", type=int, default=4096, help="tokens that the draft can propose")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-tokens", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.draft.mkdir(parents=True, exist_ok=True)
    config = json.loads((arguments.model / "config.json").read_text())
    weights = {name: value.float() for name, value in load_file(arguments.model / "model.safetensors").items()}
    table = weights["model.embed_tokens.weight"]
    text = read_text(arguments.text, Tokenizer.from_file(str(arguments.model / "tokenizer.json")), arguments.share)
    tokens, starts, prompts, _ = text
    print(f"{len(prompts)} conversations, {len(tokens)} tokens", flush=True)
    if not (arguments.draft / "states.npy").exists():
        path = arguments.draft / "states.part.npy"
        write_states(path, Decoder(config, weights), config["num_hidden_layers"], table, tokens, starts)
        path.rename(arguments.draft / "states.npy")
    trainer = Trainer(arguments.draft, (config, weights), table, text, arguments)
    trainer.train(arguments, config)
    write_draft(arguments.draft, config, trainer)
    print(trainer.measure())


main()
