"""Makes the tokenizers of this folder, from texts.json, which lists the texts that tests read.

    python3 make_tokenizers.py QWEN3

QWEN3 is a folder with Qwen3's tokenizer.json and tokenizer_config.json (Apache 2.0). qwen3/ is an excerpt of it: the tokens
and merges that play a part in the texts, under their own ids, so that the texts have the ids that the whole tokenizer gives them.

llama3/ is made anew: pre-tokenizer, post-processor, special tokens and their ids are those of Llama 3, the vocabulary is
trained on the texts. ids.json has the ids that the package `tokenizers` gives the texts with it, as expected values.

Needs the package `tokenizers`.
"""

import json
import re
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def merges_of(word, ranks, needed):
    """Adds to `needed` the merges that are possible at any step of merging `word`."""
    symbols = list(word)
    while len(symbols) > 1:
        known = [(ranks[pair], at) for at, pair in enumerate(zip(symbols, symbols[1:])) if pair in ranks]
        needed.update(rank for rank, _ in known)
        if not known:
            return
        _, at = min(known)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]


def excerpt(source, texts):
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    whole = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    model = whole["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    needed = set()
    # Added tokens are cut out of a text first.
    added = re.compile("|".join(re.escape(token["content"]) for token in whole["added_tokens"]))
    for part in (part for text in texts for part in added.split(text)):
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(part)):
            merges_of(word, ranks, needed)
    kept = [merges[rank] for rank in sorted(needed)]
    tokens = set(pre_tokenizers.ByteLevel.alphabet()) | {one + other for one, other in kept}
    # What a merge joins has to be a token itself.
    tokens |= {part for merge in kept for part in merge}
    model["vocab"] = {token: id for token, id in model["vocab"].items() if token in tokens}
    # Added tokens keep their ids only if the vocabulary has them.
    model["vocab"].update({token["content"]: token["id"] for token in whole["added_tokens"]})
    model["merges"] = [list(merge) for merge in kept]
    write(HERE / "tokenizers/qwen3/tokenizer.json", whole)
    small = Tokenizer.from_file(str(HERE / "tokenizers/qwen3/tokenizer.json"))
    for text in texts:
        assert small.encode(text).ids == tokenizer.encode(text).ids, text
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    write(HERE / "tokenizers/qwen3/tokenizer_config.json", config)


SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["begin_of_text", "end_of_text", "reserved_special_token_0", "reserved_special_token_1", "finetune_right_pad_id"]
SPECIAL += ["step_id", "start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag"]
TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)


def llama3(texts):
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    trainer = trainers.BpeTrainer(
        vocab_size=1200, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    trained.train_from_iterator(texts, trainer)
    model = json.loads(trained.to_str())["model"]
    whole = Tokenizer(models.BPE(model["vocab"], [tuple(merge) for merge in model["merges"]], ignore_merges=True))
    whole.pre_tokenizer = trained.pre_tokenizer
    whole.decoder = decoders.ByteLevel()
    described = json.loads(whole.to_str())
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    described["added_tokens"] = [
        {"id": 128000 + at, "content": f"<|{name}|>", **special} for at, name in enumerate(SPECIAL)
    ]
    described["model"]["vocab"].update({token["content"]: token["id"] for token in described["added_tokens"]})
    begin = {"id": "<|begin_of_text|>", "ids": [128000], "tokens": ["<|begin_of_text|>"]}
    described["post_processor"] = {
        "type": "Sequence",
        "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": begin["id"], "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [
                    {"SpecialToken": {"id": begin["id"], "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": begin["id"], "type_id": 1}},
                    {"Sequence": {"id": "B", "type_id": 1}},
                ],
                "special_tokens": {begin["id"]: begin},
            },
        ],
    }
    write(HERE / "tokenizers/llama3/tokenizer.json", described)
    config = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "chat_template": TEMPLATE}
    write(HERE / "tokenizers/llama3/tokenizer_config.json", {**config, "tokenizer_class": "PreTrainedTokenizerFast"})
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizers/llama3/tokenizer.json"))
    write(HERE / "tokenizers/llama3/ids.json", [tokenizer.encode(text).ids for text in texts])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    TEXTS = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))
    excerpt(Path(sys.argv[1]), TEXTS)
    llama3(TEXTS)
