#!/usr/bin/env python3
"""Speed of examples/ray_serve.py with one replica and with two, and the fate of requests while one of two is killed.

    pip install pard-llm "ray[serve]" && ./run model
    python benches/ray_replicas.py --clients 8 --requests 32

Every answer is held against the first to the same prompt: one that is cut off or missing without an error, or other than that,
is lost, and none may be. Linux only: replicas are found by their names in /proc.
"""

import argparse
import collections
import http.client
import json
import os
import pathlib
import signal
import sys
import threading
import time

EXAMPLES = str(pathlib.Path(__file__).resolve().parent.parent / "examples")
sys.path.insert(0, EXAMPLES)

import ray
from ray import serve
from ray_serve import application

PROMPTS = ["Name three colours.", "What is the capital of France?", "Write a poem about coffee.", "What is a prime number?"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--gpus", type=float, default=0)
    return parser.parse_args()


def ask(prompt, tokens, stream):
    """The text of an answer. Raises OSError or HTTPException where the server says or shows that there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=300)
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "stream": stream}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != 200:
        raise ConnectionError(f"{answer.status} {text[:80]}")
    if not stream:
        return json.loads(text)["choices"][0]["message"]["content"]
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        raise ConnectionError("the stream has no last line")
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def load(options, expected, during=None):
    """Sends all requests, and counts how they ended; `during` is called once a quarter of them have."""
    jobs = collections.deque((PROMPTS[n % len(PROMPTS)], n % 2 == 1) for n in range(options.requests))
    ends, lock, quarter = collections.Counter(), threading.Lock(), threading.Event()

    def client():
        while True:
            try:
                prompt, stream = jobs.popleft()
            except IndexError:
                return
            try:
                text = ask(prompt, options.tokens, stream)
                end = "whole" if text == expected.setdefault(prompt, text) else "lost"
            except (OSError, http.client.HTTPException) as error:
                end = "error"
                print(f"  {type(error).__name__}: {error}")
            with lock:
                ends[end] += 1
                if 4 * ends.total() >= options.requests:
                    quarter.set()

    begin = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(options.clients)]
    for thread in threads:
        thread.start()
    if during:
        quarter.wait()
        during()
    for thread in threads:
        thread.join()
    return ends, time.monotonic() - begin


def processes(part):
    """Processes with `part` in their command line, and their parents."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if part in (folder / "cmdline").read_bytes():
                found[int(folder.name)] = int((folder / "status").read_text().split("PPid:")[1].split()[0])
        except OSError:
            pass
    return found


def replicas():
    """Processes of replicas, by Ray's name for them."""
    return list(processes(b"ServeReplica:default:Server"))


def server_of(replica):
    return next(process for process, parent in processes(b"pard\0serve").items() if parent == replica)


def start(options, count):
    settings = {"model": options.model, "parallel": options.parallel, "gpus": options.gpus, "context": 512}
    serve.run(application({**settings, "min_replicas": count, "max_replicas": count}), route_prefix="/")
    while len(replicas()) != count:
        time.sleep(0.5)


def main():
    options = arguments()
    ray.init(num_cpus=8, log_to_driver=False, runtime_env={"working_dir": EXAMPLES})
    expected, lost = {}, 0
    for count in [1, 2]:
        start(options, count)
        load(argparse.Namespace(**{**vars(options), "requests": 2 * options.clients}), expected)
        ends, seconds = load(options, expected)
        lost += ends["lost"]
        print(f"{count} replicas: {dict(ends)} in {seconds:.1f} s, {options.requests * options.tokens / seconds:.1f} tokens/s")
    for victim, find in [("replica", lambda: min(replicas())), ("server", lambda: server_of(min(replicas())))]:
        ends, seconds = load(options, expected, during=lambda: os.kill(find(), signal.SIGKILL))
        lost += ends["lost"]
        print(f"2 replicas, a {victim} killed: {dict(ends)} in {seconds:.1f} s")
        start(options, 2)
        ends, seconds = load(options, expected)
        lost += ends["lost"]
        print(f"2 again: {dict(ends)} in {seconds:.1f} s")
    serve.shutdown()
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
