"""Answers that keep to a schema, by AR, VSD and PARD: all must validate and be the same tokens; and what they cost.

    pip install jsonschema
    pard serve -m smollm2 -d models/smollm2-135m-instruct-pard --parallel 8
    python structured.py http://127.0.0.1:8080 [--prompts 100] [--temperature 0.8] [--together 8] [--free]

Each of a hundred things is described by a schema of nested objects, arrays, enumerations and patterns. With `--together 1`
methods take turns at each prompt, and tokens per second are compared; with more, answers are written at once. `--free` lets PARD
also write as many tokens without a schema, to compare rounds.
"""

import argparse
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import jsonschema

THINGS = """apple bear bicycle book bottle bread bridge brush bucket butterfly cactus camel camera candle carrot castle cat chair
cherry clock cloud coat coin comb compass computer cow crab crown cup deer desk diamond dog dolphin door dragon drum duck eagle
egg elephant engine feather fence fish flag flower flute forest fork fox frog garden ghost glove goat guitar hammer harp hat hen
horse house island jacket kettle key kite knife ladder lake lamp leaf lemon lion map mirror monkey moon mountain mouse needle
nest oak ocean onion orange owl panda paper peach pear pencil piano pig pirate planet plate potato puppet""".split()

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "kind": {"enum": ["animal", "plant", "tool", "place", "food", "other"]},
        "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        "size": {
            "type": "object",
            "properties": {"height": {"type": "integer", "minimum": 0, "maximum": 9999}, "unit": {"enum": ["mm", "cm", "m"]}},
            "required": ["height", "unit"],
            "additionalProperties": False,
        },
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 3},
        "is_alive": {"type": "boolean"},
    },
    "required": ["name", "kind", "code", "size", "tags", "is_alive"],
    "additionalProperties": False,
}
METHODS = ["ar", "vsd", "pard"]


def ask(thing, method, settings, form, max_tokens):
    message = {"role": "user", "content": f"Describe this thing as JSON: {thing}."}
    body = {"messages": [message], "max_tokens": max_tokens, "cache_prompt": False, **settings, **form}
    body["pard"] = {"method": method}
    request = urllib.request.Request(f"{arguments.url}/v1/chat/completions", json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=600) as reply:
        choice = json.load(reply)["choices"][0]
    return choice["message"]["content"], choice["finish_reason"], choice["pard"]


parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("--prompts", type=int, default=100)
parser.add_argument("--temperature", type=float, default=0.0)
parser.add_argument("--together", type=int, default=8)
parser.add_argument("--free", action="store_true")
arguments = parser.parse_args()
things = THINGS[: arguments.prompts]
form = {"response_format": {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}}}


def answers(numbered):
    number, thing = numbered
    settings = {"temperature": arguments.temperature, "seed": 100 + number}
    given = {method: ask(thing, method, settings, form, 400) for method in METHODS}
    if arguments.free:
        tokens = len(given["pard"][2]["tokens"])
        given["free"] = ask(thing, "pard", settings, {}, tokens)
    return given


with ThreadPoolExecutor(arguments.together) as pool:
    given = list(pool.map(answers, enumerate(things)))
valid = same = 0
for answer in given:
    texts = {answer[method][0] for method in METHODS}
    ids = {tuple(token["id"] for token in answer[method][2]["tokens"]) for method in METHODS}
    same += len(texts) == 1 and len(ids) == 1
    if all(answer[method][1] == "stop" for method in METHODS):
        jsonschema.validate(json.loads(answer["ar"][0]), SCHEMA)
        valid += 1
print(f"{len(things)} prompts, temperature {arguments.temperature}: {valid} valid, {same} the same by {', '.join(METHODS)}")
for method in METHODS + ["free"] * arguments.free:
    reports = [answer[method][2] for answer in given]
    tokens = sum(len(report["tokens"]) for report in reports)
    rounds, forced = (sum(report[name] for report in reports) for name in ("rounds", "forced_tokens"))
    ratios = [one[2]["tokens_per_second"] / other[2]["tokens_per_second"] for one, other in
              ((answer[method], answer["ar"]) for answer in given)]
    speed = median(report["tokens_per_second"] for report in reports)
    print(f"{method:5} {tokens} tokens, {rounds} rounds of {tokens / rounds:.2f}, {forced} forced, {speed:.1f} tokens/s, "
          f"{median(ratios):.2f} x ar")
