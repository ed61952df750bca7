#!/usr/bin/env python3
"""Keeps `pard serve` busy for a long time and counts what goes wrong. Nothing but Python 3.9's own library is needed.

    cargo build --release && ./run model
    python3 benches/serve_soak.py --minutes 30 --clients 64

The texts that answers must have are those that `pard generate` writes. Clients ask for them whole, as streams, slowly, by
every method, free and in the form of a grammar; they go away in the middle, and they send what is no request. Every half
minute a line tells what was answered and how much memory the server has; the exit code is 1 if an answer was lost or wrong,
or if the server did not end well.
"""

import argparse
import collections
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time

CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "size": {"enum": ["small", "large"]},
        "codes": {"type": "array", "items": {"type": "string", "pattern": "^[A-Z]{2}[0-9]$"}, "maxItems": 2},
    },
    "required": ["name", "size", "codes"],
    "additionalProperties": False,
}

# Form of an answer: its option for `pard generate`, and its field in a request.
FORMS = {
    "free": ([], {}),
    "schema": (["--json-schema", json.dumps(CITY)], {"json_schema": CITY}),
    "regex": (["--regex", "[0-9]{3}-[a-z]{2,9}"], {"guided_regex": "[0-9]{3}-[a-z]{2,9}"}),
    "choice": (["--choice", "red", "--choice", "green"], {"guided_choice": ["red", "green"]}),
}

PROMPTS = [
    # prompt, whether it is a chat, longest answer, temperature, seed, form
    ("What is the capital of France?", True, 12, 0.0, 0, "free"),
    ("Name three colours.", True, 16, 0.0, 0, "free"),
    ("Why is the sky blue?", True, 12, 0.8, 7, "free"),
    ("The three largest rivers of Europe are", False, 16, 0.0, 0, "free"),
    ("def fibonacci(n):", False, 16, 0.0, 0, "free"),
    ("Once upon a time there was", False, 16, 0.9, 3, "free"),
    ("One, two, three, four,", False, 24, 0.0, 0, "free"),
    ("A recipe for pancakes:", False, 8, 1.1, 11, "free"),
    ("Describe a city as JSON.", True, 40, 0.0, 0, "schema"),
    ("Describe another city as JSON.", True, 40, 0.8, 5, "schema"),
    ("A part number:", False, 16, 1.0, 9, "regex"),
    ("Which colour is grass?", True, 8, 0.0, 0, "choice"),
]

METHODS = [{"method": "ar"}, {"method": "vsd", "k": 2}, {"method": "pard", "k": 3}, {"method": "pard"}]

PATIENCE = 900  # seconds that a client waits for anything


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pard", default="target/release/pard")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--draft", default="models/smollm2-135m-instruct-pard")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--every", type=float, default=30, help="seconds between two lines")
    return parser.parse_args()


def expected_texts(options):
    """What `pard generate` answers."""
    texts = []
    for prompt, chat, tokens, temperature, seed, form in PROMPTS:
        command = [options.pard, "generate", "-m", options.model, "-p", prompt, "--chat" if chat else "--raw"]
        command += ["-n", str(tokens), "-t", str(temperature), "--seed", str(seed), "--json", "-q"]
        command += FORMS[form][0]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        texts.append(json.loads(output)["text"])
        print(f"expected: {prompt!r} -> {texts[-1]!r}", flush=True)
    return texts


class Server:
    def __init__(self, options):
        command = [options.pard, "serve", "-m", options.model, "-d", options.draft, "--port", "0"]
        command += ["--parallel", str(options.parallel), "--queue", str(options.clients)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.port = None
        for line in self.process.stderr:
            print(f"server: {line.strip()}", flush=True)
            if "listening on" in line:
                self.port = int(line.strip().rsplit(":", 1)[1])
            if line.strip() == "ready":
                break
        # What it says from here on is shown too, and the pipe stays empty.
        threading.Thread(target=self.echo, daemon=True).start()

    def echo(self):
        for line in self.process.stderr:
            print(f"server: {line.strip()}", flush=True)

    def memory(self):
        """Resident memory in MB, where the system tells."""
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
                lines = dict(line.split(":", 1) for line in status)
            return int(lines["VmRSS"].split()[0]) / 1000
        except OSError:
            return float("nan")

    def metrics(self):
        text = request(self, "GET", "/metrics").decode()
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}


def connect(server):
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)


def request(server, method, path, body=None):
    connection = connect(server)
    connection.request(method, path, body)
    answer = connection.getresponse().read()
    connection.close()
    return answer


class Refused(Exception):
    """The queue was full; the argument says after how many seconds to try again."""


def ask(server, choice, stream, method, pause=0.0, leave_after=None):
    """The text of an answer, or None if the client left before its end."""
    prompt, chat, tokens, temperature, seed, form = PROMPTS[choice]
    body = {"max_tokens": tokens, "temperature": temperature, "seed": seed, "stream": stream, "pard": method, **FORMS[form][1]}
    body.update({"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt})
    path = "/v1/chat/completions" if chat else "/v1/completions"
    connection = connect(server)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        if leave_after == 0:
            time.sleep(random.random())
            return None
        response = connection.getresponse()
        if response.status == 429:
            raise Refused(int(response.headers["Retry-After"]))
        if response.status != 200:
            raise RuntimeError(f"status {response.status}: {response.read()[:200]}")
        if not stream:
            answer = json.loads(response.read())["choices"][0]
            return answer["message"]["content"] if chat else answer["text"]
        text, ended = "", False
        for count, line in enumerate(response):
            if leave_after is not None and count >= leave_after:
                return None
            time.sleep(pause)
            line = line.strip()
            if line == b"data: [DONE]":
                ended = True
            elif line.startswith(b"data: "):
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise RuntimeError(f"error in the stream: {chunk}")
                choice = chunk["choices"][0]
                text += choice["delta"].get("content", "") if chat else choice["text"]
        if not ended:
            raise RuntimeError("the stream was cut off")
        return text
    finally:
        connection.close()


def send_nonsense(server):
    """Sends what is no request and checks that it is refused as such."""
    kind = random.randrange(6)
    if kind == 0:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as stream:
            stream.sendall(bytes(random.randrange(256) for _ in range(random.randrange(1, 2000))) + b"\r\n\r\n")
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(4096):
                pass
        return
    if kind == 1:  # half a body, and gone
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as stream:
            stream.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"prompt\": ")
        return
    path, body, status = [
        ("/v1/completions", b"{\"prompt\": [1, 2", 400),
        ("/v1/completions", json.dumps({"prompt": "x" * 3_000_000}).encode(), 413),
        ("/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": "the " * 9000}]}).encode(), 400),
        ("/v1/nothing", b"", 404),
    ][kind - 2]
    connection = connect(server)
    connection.request("POST", path, body)
    response = connection.getresponse()
    response.read()
    connection.close()
    if response.status != status:
        raise RuntimeError(f"{path}: status {response.status} in place of {status}")


class Client(threading.Thread):
    """Asks until it is time."""

    def __init__(self, server, texts, deadline, counts, lock, seed):
        super().__init__(daemon=True)
        self.server, self.texts, self.deadline, self.counts, self.lock = server, texts, deadline, counts, lock
        self.random = random.Random(seed)

    def run(self):
        while time.monotonic() < self.deadline:
            kind = self.random.choices(
                ["whole", "stream", "slow", "leaving", "nonsense"], weights=[35, 30, 5, 15, 15]
            )[0]
            try:
                self.once(kind)
            except Refused as refused:
                self.count(f"{kind}: refused with 429")
                time.sleep(refused.args[0])
            except Exception as error:  # whatever it is, an answer was lost
                self.count(f"{kind}: LOST")
                print(f"LOST: {kind}: {type(error).__name__}: {error}", flush=True)

    def once(self, kind):
        if kind == "nonsense":
            send_nonsense(self.server)
            return self.count("nonsense: refused as it should be")
        choice = self.random.randrange(len(PROMPTS))
        method = self.random.choice(METHODS)
        leave_after = self.random.choice([0, 1, 3, 8]) if kind == "leaving" else None
        pause = 0.5 if kind == "slow" else 0.0
        text = ask(self.server, choice, kind != "whole", method, pause, leave_after)
        if kind == "leaving":
            return self.count("leaving: left")
        if text == self.texts[choice]:
            return self.count(f"{kind}: right")
        self.count(f"{kind}: WRONG")
        print(f"WRONG: {PROMPTS[choice]} by {method}: {text!r}, expected {self.texts[choice]!r}", flush=True)

    def count(self, what):
        with self.lock:
            self.counts[what] += 1


def main():
    options = arguments()
    texts = expected_texts(options)
    server = Server(options)
    if server.port is None:
        sys.exit("the server did not start")
    counts, lock, begin = collections.Counter(), threading.Lock(), time.monotonic()
    deadline = begin + 60 * options.minutes
    clients = [Client(server, texts, deadline, counts, lock, seed) for seed in range(options.clients)]
    for client in clients:
        client.start()
    memory = []
    while any(client.is_alive() for client in clients):
        until = time.monotonic() + options.every
        while time.monotonic() < until and any(client.is_alive() for client in clients):
            time.sleep(0.2)
        memory.append(server.memory())
        with lock:
            line = ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))
        print(f"{time.monotonic() - begin:5.0f} s: {memory[-1]:.1f} MB; {line}", flush=True)

    # Sessions of clients that left a moment ago are free after a round.
    time.sleep(10)
    metrics = server.metrics()
    stuck = metrics["pard_queue_depth"] + metrics["pard_answers_running"]
    server.process.send_signal(signal.SIGTERM)
    code = server.process.wait(timeout=60)
    total = sum(counts.values())
    bad = sum(count for what, count in counts.items() if "LOST" in what or "WRONG" in what)
    tokens, rounds = metrics["pard_answer_tokens_total"], metrics["pard_rounds_total"]
    print(f"{total} requests in {time.monotonic() - begin:.0f} s: {bad} lost or wrong, {stuck:.0f} answers stuck, exit code {code}")
    print(f"{tokens:.0f} tokens in {rounds:.0f} rounds; memory in MB, each {options.every:.0f} s:")
    print(" ".join(f"{value:.0f}" for value in memory))
    sys.exit(1 if bad or stuck or code else 0)


if __name__ == "__main__":
    main()
