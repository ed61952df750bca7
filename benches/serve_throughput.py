#!/usr/bin/env python3
"""How many tokens a second `pard serve` writes for several clients together, and when they begin to come. Nothing but Python
3.9's own library is needed.

    cargo build --release && ./run model
    python3 benches/serve_throughput.py --clients 1,2,4,8
    python3 benches/serve_throughput.py --pard OLD,target/release/pard    compares two builds, in turns

Every client asks for a text of so many tokens, all at once; the time is that of all of them, prompts included. Each number
of clients is asked for once to compile kernels, and then several times, of which the median counts. The line says when the
first of the clients had a token, when half of them and when all had, and how many tokens a pass of the target wrote, where
the server tells. `--prompt-words` makes prompts longer.
"""

import argparse
import http.client
import json
import signal
import statistics
import subprocess
import threading
import time

PROMPTS = [
    "Once upon a time there was",
    "The three largest rivers of Europe are",
    "def fibonacci(n):",
    "A recipe for pancakes:",
    "The history of the city begins",
    "In this chapter we will learn",
    "Dear Sir or Madam,",
    "The weather in the mountains",
]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pard", default="target/release/pard", help="one build, or several to compare")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--draft", help="a draft; without it decoding is plain")
    parser.add_argument("--clients", default="1,2,4,8")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--prompt-words", type=int, default=0, help="words that each prompt is filled up to")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--context", type=int, default=512)
    return parser.parse_args()


class Server:
    def __init__(self, options, binary, parallel):
        command = [binary, "serve", "-m", options.model, "--port", "0", "--parallel", str(parallel)]
        command += ["-c", str(options.context)]
        command += ["-d", options.draft] if options.draft else []
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "listening on" in line:
                self.port = int(line.rsplit(":", 1)[1])
            if line.strip() == "ready":
                break
        else:
            raise SystemExit(f"{binary} did not start")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=900)
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def metric(self, name):
        lines = self.ask("GET", "/metrics").splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"pard_{name} ")), None)

    def stream(self, body):
        """When the first token of a text came, and how many came in all."""
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=900)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        first, usage = None, None
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                first = first or time.monotonic()
                usage = json.loads(line[6:]).get("usage") or usage
        connection.close()
        return first, usage["completion_tokens"]

    def run(self, clients, options):
        """Tokens a second, tokens a pass, and when each client had its first token."""
        firsts, written = [], []

        def client(index):
            prompt = prompt_of(index, options.prompt_words)
            first, count = self.stream({"prompt": prompt, "max_tokens": options.tokens, "cache_prompt": False})
            firsts.append(first)
            written.append(count)

        passes = self.metric("pass_rows_count")
        threads = [threading.Thread(target=client, args=(index,)) for index in range(clients)]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begin
        assert len(written) == clients, "an answer was lost"
        total = sum(written)
        per_pass = None if passes is None else total / (self.metric("pass_rows_count") - passes)
        return total / took, per_pass, sorted(first - begin for first in firsts)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def prompt_of(index, words):
    """A text of its own for each client, of so many words at least."""
    text = PROMPTS[index % len(PROMPTS)].split()
    while len(text) < words:
        text = PROMPTS[(index + len(text)) % len(PROMPTS)].split() + text
    return " ".join(text)


def main():
    options = arguments()
    counts = [int(count) for count in options.clients.split(",")]
    binaries = options.pard.split(",")
    servers = [Server(options, binary, max(counts)) for binary in binaries]
    rates = {}
    for repeat in range(options.repeats + 1):
        for clients in counts:
            for binary, server in zip(binaries, servers):
                found = server.run(clients, options)
                if repeat > 0:
                    rates.setdefault((clients, binary), []).append(found)
    for server in servers:
        server.end()
    firsts = f"{'first s':>7}  {'half':>7}  {'all':>7}"
    print(f"{'clients':>7}  {'tokens/s':>8}  {'over 1':>6}  {firsts}  {'tokens/pass':>11}  build")
    for binary in binaries:
        one = None
        for clients in counts:
            found = rates[clients, binary]
            rate = statistics.median(rate for rate, _, _ in found)
            one = one or rate
            passes = [per_pass for _, per_pass, _ in found if per_pass is not None]
            per_pass = f"{statistics.median(passes):11.2f}" if passes else f"{'-':>11}"
            firsts = [statistics.median(times[at] for *_, times in found) for at in (0, (clients - 1) // 2, -1)]
            firsts = "  ".join(f"{first:7.2f}" for first in firsts)
            print(f"{clients:7}  {rate:8.2f}  {rate / one:6.2f}  {firsts}  {per_pass}  {binary}")


if __name__ == "__main__":
    main()
