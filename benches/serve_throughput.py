#!/usr/bin/env python3
"""How many tokens a second `pard serve` writes for several clients together. Nothing but Python 3.9's own library is needed.

    cargo build --release && ./run model
    python3 benches/serve_throughput.py --clients 1,2,4,8
    python3 benches/serve_throughput.py --pard OLD,target/release/pard    compares two builds, in turns

Every client asks for a text of so many tokens, all at once; the time is that of all of them, prompts included. Each number
of clients is asked for once to compile kernels, and then several times, of which the median counts. The line says how many
tokens a pass of the target wrote, where the server tells.
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

    def run(self, clients, tokens):
        """Tokens a second, and tokens a pass."""
        written = []

        def client(index):
            body = {"prompt": PROMPTS[index % len(PROMPTS)], "max_tokens": tokens, "cache_prompt": False}
            answer = json.loads(self.ask("POST", "/v1/completions", body))
            written.append(answer["usage"]["completion_tokens"])

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
        return total / took, None if passes is None else total / (self.metric("pass_rows_count") - passes)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def main():
    options = arguments()
    counts = [int(count) for count in options.clients.split(",")]
    binaries = options.pard.split(",")
    servers = [Server(options, binary, max(counts)) for binary in binaries]
    rates = {}
    for repeat in range(options.repeats + 1):
        for clients in counts:
            for binary, server in zip(binaries, servers):
                found = server.run(clients, options.tokens)
                if repeat > 0:
                    rates.setdefault((clients, binary), []).append(found)
    for server in servers:
        server.end()
    print(f"{'clients':>7}  {'tokens/s':>8}  {'over 1':>6}  {'tokens/pass':>11}  build")
    for binary in binaries:
        one = None
        for clients in counts:
            found = rates[clients, binary]
            rate = statistics.median(rate for rate, _ in found)
            one = one or rate
            passes = [per_pass for _, per_pass in found if per_pass is not None]
            per_pass = f"{statistics.median(passes):11.2f}" if passes else f"{'-':>11}"
            print(f"{clients:7}  {rate:8.2f}  {rate / one:6.2f}  {per_pass}  {binary}")


if __name__ == "__main__":
    main()
