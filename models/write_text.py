"""Writes text of SmolLM2-135M-Instruct to train a draft on, on a CPU.

    pip install torch safetensors tokenizers numpy
    python write_text.py MODEL_FOLDER text.jsonl --prompts more.jsonl --without benchmark.jsonl --hours 8

The prompts are those of the files given and, for the larger part, prompts that the model writes itself: the user's turn
of a conversation of which only the first words are given, drawn at temperature 0.9. The model answers a quarter of them
at temperature 0.6 and the others greedily. Each line of the output is a conversation as `pard adapt --data` reads it.

A second run adds to the same file: prompts that it holds are not answered again, and the random numbers follow from
`--seed` and from what is there already. Prompts that are or quote one of a file of `--without` are dropped.

Every worker is one thread and writes `--slots` conversations at once, one token each per step. A slot whose
conversation ends begins the next one at once. Prompts are fed like that too, so that a step is always as wide, and a
prompt that the model has just written needs no second reading. The matrices are multiplied in bfloat16, which is as
fast as it should be where the CPU has instructions for it (avx512_bf16, amx_bf16). Keys and values are kept in bfloat16
too. All else, and the choice of a greedy token, is worked out in float32 (`write_text.c`, which `cc` compiles when the
script starts).
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.functional import linear, rms_norm, silu

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
BEFORE = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
END = "<|im_end|>"
AFTER = END + "\n<|im_start|>assistant\n"

# First words of the prompts that the model writes, by kind: how frequent the kind is beside the others, and the words.
STARTS = {
    "open": (3, ""),
    "code": (
        5,
        "Write a Python function that|Write a Python function to|Write a function|Write a Python program|"
        "Write a JavaScript function|Write a SQL query|Write a C program|Write a class in Python|"
        "Implement a function|Implement an algorithm|Fix the bug in this code:\n\n|"
        "Explain what this code does:\n\n|Complete the code I provided.\n\ndef|"
        "Complete the code I provided.\ndef|Complete this function.\n\ndef|"
        "Complete the following Python function.\n\ndef|from typing import List\n\ndef|How do I use Python to|"
        "Given a list of integers,|Write a regular expression|Refactor this code:\n\n|Write a shell command|"
        "Write a unit test|Using Python, create|Write a Rust function|Write an HTML page",
    ),
    "maths": (
        5,
        "Solve|Solve for x:|Calculate|What is the value of|A train|A store sells|A farmer has|If|If a|There are|"
        "John has|Maria|Tom and|A class of|A rectangle|The sum of|How many|Sarah bought|Every day,|Find the|"
        "What is the probability|Simplify|A company|In a school|Prove that|What is the area of|Convert|A baker|"
        "Each|At a|Evaluate|Mike earns|The price of|Emily and her|What is the sum|Let $x$ be|Compute",
    ),
    "explanation": (
        4,
        "Explain|Explain how|Explain why|Explain the concept of|What is|What are|What does|Why|Why do|How does|"
        "How do|What is the difference between|Describe|Describe how|Who was|When did|Where is|What causes|"
        "Compare|Define|What happens when|Tell me about|Which|In simple terms,|What was",
    ),
    "list": (
        2,
        "List|Give me|Give me five|Name|Name three|Suggest|What are some|What are the|Create a list of|Generate|"
        "Recommend|Provide|Write down|Make a plan|Give examples of|Outline",
    ),
    "story": (
        2,
        "Write a short story about|Write a poem about|Write a story|Tell me a story|Write a dialogue between|"
        "Imagine|Imagine you are|Write a letter|Write an essay|Write a paragraph|Write a blog post|Write a|"
        "Compose|Write an email|Write a speech|Create a character|Describe a scene|Write a haiku|Draft|"
        "Write a product description|Write a review|Create",
    ),
    "chat": (
        2,
        "I|I'm|I have|My|Can you|Could you|Do you|Is it|Should I|How can I|Hello|Hi|Please|I want to|I need|"
        "What do you think|Help me|What should I|Are there|Pretend|You are|Let's|We|Thanks|I am trying to",
    ),
    "rewriting": (
        2,
        "Rewrite|Rewrite the following sentence|Summarize|Summarize the following text:\n\n|Translate|Paraphrase|"
        "Correct the grammar|Classify|Extract|Identify|Edit|Turn this|Improve|Make this sentence|"
        "Given the following|Read the following passage|Analyze|Shorten|Fill in|"
        "Answer the question based on the text.\n\n|Is the following sentence|Convert the following",
    ),
}
PROMPT_TEMPERATURE, PROMPT_TOKENS = 0.9, 112
ANSWER_TEMPERATURE, GREEDY_SHARE = 0.6, 0.75
FILE_SHARE = 0.3
ANSWER_BEGUN = re.compile(r"\s+(A|Answer|Output|Response|Solution):$")  # The end of some written prompts.
TELL_EVERY = 60  # seconds
LEAST = 0.01  # Draws leave out tokens that are less probable than this share of the most probable one.


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="folder with config.json, tokenizer.json and model.safetensors")
    parser.add_argument("out", type=Path, help="file of conversations; it is added to")
    parser.add_argument("--prompts", type=Path, nargs="*", default=[], help="JSON lines of prompts to answer")
    parser.add_argument(
        "--without", type=Path, nargs="*", default=[], help="JSON lines of prompts not to answer or quote"
    )
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of one thread each")
    parser.add_argument("--slots", type=int, default=128, help="conversations that a worker writes at once")
    parser.add_argument("--answer", type=int, default=192, help="tokens of an answer at most")
    parser.add_argument("--room", type=int, default=400, help="tokens of a conversation at most")
    return parser.parse_args()


class Model:
    """The network and the caches of `slots` sequences of up to `room` tokens."""

    def __init__(self, folder, slots, room):
        config = json.loads((folder / "config.json").read_text())
        weights = {name: w.bfloat16() for name, w in load_file(folder / "model.safetensors").items()}
        layers, width, heads = config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]
        self.groups, self.eps, self.room = config["num_key_value_heads"], config["rms_norm_eps"], -(-room // 16) * 16
        self.head_size = config.get("head_dim") or width // heads
        self.attention_width, self.inner, self.width = heads * self.head_size, config["intermediate_size"], width
        if not config.get("tie_word_embeddings") or config.get("rope_scaling") or width % 16 or self.head_size % 16:
            raise SystemExit(
                f"{folder}: embeddings that are not tied, scaled rotary embeddings and odd widths are not supported"
            )
        self.embeddings = weights["model.embed_tokens.weight"].contiguous()
        self.last_norm = weights["model.norm.weight"].float()
        self.layers = []
        for i in range(layers):
            prefix = f"model.layers.{i}."
            part = {name[len(prefix) : -len(".weight")]: w for name, w in weights.items() if name.startswith(prefix)}
            attention = torch.cat([part[f"self_attn.{name}_proj"] for name in "qkv"])
            gate_up = torch.cat([part["mlp.gate_proj"], part["mlp.up_proj"]])
            norm1, norm2 = part["input_layernorm"].float(), part["post_attention_layernorm"].float()
            self.layers.append((norm1, attention, part["self_attn.o_proj"], norm2, gate_up, part["mlp.down_proj"]))
        angles = torch.outer(
            torch.arange(self.room).double(),
            config["rope_theta"] ** -(torch.arange(0, self.head_size, 2).double() / self.head_size),
        )
        self.turns = torch.cat([angles.cos(), angles.sin()], 1).float().contiguous()
        self.keys = torch.zeros(layers, slots, self.groups, self.room * self.head_size, dtype=torch.bfloat16)
        self.values = torch.zeros_like(self.keys)
        self.native = compile_native(self.head_size, heads // self.groups)

    def step(self, tokens, positions, wanted):
        """Feeds one token to each of the first slots; gives the last hidden rows of the slots `wanted`."""
        rows = len(tokens)
        position = torch.tensor(positions, dtype=torch.int32)
        x = self.embeddings[torch.tensor(tokens)].float()
        attended = torch.empty(rows, self.attention_width, dtype=torch.bfloat16)
        for layer, (norm1, qkv, out, norm2, gate_up, down) in enumerate(self.layers):
            h = linear(rms_norm(x, (self.width,), norm1, self.eps).bfloat16(), qkv)
            self.native.attend(
                rows,
                self.groups,
                self.room,
                pointer(position),
                pointer(self.turns),
                pointer(h),
                pointer(self.keys[layer]),
                pointer(self.values[layer]),
                pointer(attended),
            )
            x += linear(attended, out)
            h = linear(rms_norm(x, (self.width,), norm2, self.eps).bfloat16(), gate_up).float()
            x += linear((silu(h[:, : self.inner]) * h[:, self.inner :]).bfloat16(), down)
        return rms_norm(x[torch.tensor(wanted, dtype=torch.long)], (self.width,), self.last_norm, self.eps)

    def choose(self, hidden, temperatures):
        """Chooses a token for every row of `hidden`."""
        logits = linear(hidden.bfloat16(), self.embeddings)
        temperature, uniform = torch.tensor(temperatures), torch.rand(len(temperatures))
        token = torch.zeros(len(temperatures), dtype=torch.long)
        self.native.choose(
            len(temperatures),
            logits.shape[1],
            self.width,
            pointer(hidden),
            pointer(self.embeddings),
            pointer(logits),
            pointer(temperature),
            pointer(uniform),
            ctypes.c_float(LEAST),
            pointer(token),
        )
        return token.tolist()


def pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def compile_native(head, group):
    source = Path(__file__).with_suffix(".c")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "native.so"
        flags = f"-O3 -march=native -ffast-math -Wno-psabi -DHEAD={head} -DGROUP={group} -shared -fPIC".split()
        subprocess.run(["cc", *flags, str(source), "-o", str(library), "-lm"], check=True)
        return ctypes.CDLL(str(library))


def words(text):
    return re.findall(r"\w+", text.lower())


class Without:
    """Prompts that are not to be answered: known by their words, or by any ten of them in a row."""

    RUN = 10

    def __init__(self, texts):
        self.whole, self.runs = set(), set()
        for text in texts:
            some = words(text)
            self.whole.add(tuple(some))
            self.runs.update(self.runs_of(some))

    def runs_of(self, some):
        return (tuple(some[i : i + self.RUN]) for i in range(len(some) - self.RUN + 1))

    def __contains__(self, text):
        some = words(text)
        return tuple(some) in self.whole or any(run in self.runs for run in self.runs_of(some))


def read_lines(path):
    """The JSON objects of a file, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def resume(path):
    """The conversations that a file holds already. Takes away a last line that was cut off."""
    if not path.exists():
        return []
    text = path.read_bytes()
    os.truncate(path, text.rfind(b"\n") + 1)
    return read_lines(path)


def prompts_of(record):
    """The prompts of a line in any of the forms of the usual prompt files."""
    if "turns" in record:
        return record["turns"]
    if "messages" in record:
        return [message["content"] for message in record["messages"] if message["role"] == "user"]
    if "instruction" in record:
        instances = record.get("instances") or [{}]
        return [(record["instruction"] + "\n" + instances[0].get("input", "")).strip()]
    return [record[name].strip() for name in ("prompt", "question", "data", "problem") if name in record]


class Prompts:
    """Prompts that were not answered yet, of files or of the model's own making."""

    def __init__(self, files, without, answered, source):
        self.files, self.without, self.answered, self.source = files, without, answered, source

    def take(self, question):
        """Says if a prompt is to be answered; one that is taken is not taken again."""
        key = " ".join(words(question))
        if len(question) < 12 or len(key) < 6 or key in self.answered or question in self.without:
            return False
        self.answered.add(key)
        return True

    def of_file(self):
        """A prompt of the files, or none when it is the model's turn to write one."""
        if self.source.random() < FILE_SHARE:
            while self.files:
                question = self.files.pop()
                if self.take(question):
                    return question
        return None

    def start(self):
        weights = [weight for weight, _ in STARTS.values()]
        _, starts = self.source.choices(list(STARTS.values()), weights)[0]
        return self.source.choice(starts.split("|"))


class Talk:
    """The text's side: tokens of turns, and the file of conversations."""

    def __init__(self, folder, out, room, answer):
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.before, self.end = self.encode(BEFORE), self.tokenizer.token_to_id(END)
        self.room, self.answer = room, answer
        self.answers = self.tokens = self.unlike = self.dropped = 0
        self.file = os.open(out, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, tokens):
        return self.tokenizer.decode(tokens, skip_special_tokens=False)

    def turn(self, question):
        """The tokens of a user's turn up to the answer; none if it is too long or holds special tokens."""
        tokens = self.encode(BEFORE + question + AFTER)
        begin = len(self.before)
        fits = len(tokens) + self.answer <= self.room and "<|" not in question
        return tokens[begin:] if fits and tokens[:begin] == self.before else None

    def write(self, question, turn, answer, temperature, ended):
        """Adds a conversation to the file, unless its text would be read as other tokens than those written."""
        text = self.decode(answer)
        if self.encode(BEFORE + question + AFTER + text) != self.before + turn + answer or "<|" in text:
            self.unlike += 1
            return
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
        reason = "stop" if ended else "length"
        record = {"messages": messages, "temperature": temperature, "finish_reason": reason}
        os.write(self.file, (json.dumps(record, ensure_ascii=False) + "\n").encode())
        self.answers, self.tokens = self.answers + 1, self.tokens + len(answer)


def conversations(talk, prompts):
    """One slot's conversations, without end. Yields the tokens to feed, the temperature of the one to choose after
    them, and True where the slot begins anew, holding all of `talk.before` but its last token; is sent the token."""
    last = talk.before[-1:]
    while True:
        question = prompts.of_file()
        if question is None:
            written = talk.encode(prompts.start())
            token = yield last + written, PROMPT_TEMPERATURE, True
            while token != talk.end and len(written) < PROMPT_TOKENS:
                written.append(token)
                token = yield [token], PROMPT_TEMPERATURE, False
            question = ANSWER_BEGUN.sub("", talk.decode(written).strip())
            if token != talk.end or not prompts.take(question):
                talk.dropped += 1
                continue
        else:
            written = []
        turn = talk.turn(question)
        if turn is None:
            continue
        temperature = 0.0 if prompts.source.random() < GREEDY_SHARE else ANSWER_TEMPERATURE
        if written and turn[: len(written) + 1] == [*written, talk.end]:
            token = yield turn[len(written) :], temperature, False
        else:
            token = yield last + turn, temperature, True
        answer = []
        while token != talk.end and len(answer) < talk.answer:
            answer.append(token)
            token = yield [token], temperature, False
        if answer:
            talk.write(question, turn, answer, temperature, token == talk.end)


def work(number, options, model, talk, prompts):
    """Writes conversations until the time is over."""
    began = told = time.monotonic()
    before = len(talk.before)
    for at in range(before - 1):
        model.step(talk.before[at : at + 1], [at], [])
    model.keys[:, 1:] = model.keys[:, :1]
    model.values[:, 1:] = model.values[:, :1]
    slots = [conversations(talk, prompts) for _ in range(options.slots)]
    waiting = [next(slot) for slot in slots]
    feed, temperature = [list(tokens) for tokens, _, _ in waiting], [t for _, t, _ in waiting]
    position = [before - 1] * options.slots
    steps = 0
    while time.monotonic() - began < 3600 * options.hours:
        wanted = [i for i, tokens in enumerate(feed) if len(tokens) == 1]
        hidden = model.step([tokens.pop(0) for tokens in feed], position, wanted)
        position = [at + 1 for at in position]
        chosen = model.choose(hidden, [temperature[i] for i in wanted]) if wanted else []
        for i, token in zip(wanted, chosen, strict=True):
            tokens, temperature[i], anew = slots[i].send(token)
            feed[i] = list(tokens)
            if anew:
                position[i] = before - 1
        steps += 1
        if time.monotonic() - told > TELL_EVERY:
            told, passed = time.monotonic(), time.monotonic() - began
            rate = f"{talk.tokens / passed:.0f} tokens/s, {talk.tokens / time.process_time():.0f} per processor second"
            rows = f"{steps * options.slots} rows fed, {talk.dropped} prompts and {talk.unlike} answers dropped"
            print(
                f"worker {number}: {passed:.0f} s, {talk.answers} answers, {talk.tokens} tokens, {rate}, {rows}",
                flush=True,
            )


def main():
    options = arguments()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    done = resume(options.out)
    answered = {" ".join(words(text)) for record in done for text in prompts_of(record)}
    without = Without(text for path in options.without for record in read_lines(path) for text in prompts_of(record))
    files = sorted({text for path in options.prompts for record in read_lines(path) for text in prompts_of(record)})
    random.Random(0).shuffle(files)
    model = Model(options.model, options.slots, options.room)
    print(f"{len(done)} conversations are there already; {len(files)} prompts in files", flush=True)

    def worker(number):
        source = random.Random(f"{options.seed} {len(done)} {number}")
        torch.manual_seed(source.getrandbits(62))
        talk = Talk(options.model, options.out, options.room, options.answer)
        work(number, options, model, talk, Prompts(files[number :: options.workers], without, answered, source))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # An orderly end, which ends the workers too.
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=worker, args=(number,), daemon=True) for number in range(options.workers)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    if any(process.exitcode for process in workers):
        sys.exit("a worker failed")


if __name__ == "__main__":
    main()
