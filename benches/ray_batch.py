#!/usr/bin/env python3
"""Kills examples/ray_data.py, then one of its workers, and compares the files with those of an undisturbed run.

    pip install pard-llm "ray[data]" && ./run model
    python benches/ray_batch.py

Linux only: programs are found in /proc.
"""

import argparse
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--part", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus", type=float, default=0)
    return parser.parse_args()


def start(options, prompts, out):
    command = [sys.executable, ROOT / "examples/ray_data.py", prompts, out, "--part", str(options.part)]
    command += ["--workers", str(options.workers), "--gpus", str(options.gpus), "--", "-m", options.model]
    # Few at once, so that a part is unfinished for a while.
    command += ["-n", str(options.tokens), "-c", "512", "--parallel", "2"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_begun(out, job):
    """Waits until a part has some of its conversations, but not all."""
    while job.poll() is None and not any(file.stat().st_size for file in out.glob("*.begun")):
        time.sleep(0.02)
    assert job.poll() is None, "the job was done before it could be killed"


def programs(out):
    """Processes of `pard respond` that write to `out`."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"respond" in words and any(word.startswith(os.fsencode(out)) for word in words):
            found.append(int(folder.name))
    return found


def contents(out):
    return {file.name: file.read_bytes() for file in out.iterdir()}


def main():
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        prompts, whole, ended = folder / "prompts.jsonl", folder / "whole", folder / "ended"
        lines = (ROOT / "models/prompts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        prompts.write_text("".join(lines[: options.prompts]), encoding="utf-8")
        begin = time.monotonic()
        assert start(options, prompts, whole).wait() == 0
        print(f"undisturbed: {time.monotonic() - begin:.1f} s")

        job = start(options, prompts, ended)
        wait_for_begun(ended, job)
        job.kill()
        job.wait()
        deadline = time.monotonic() + 30
        while programs(ended):
            assert time.monotonic() < deadline, "programs outlive the job"
            time.sleep(0.1)
        left = {name: len(text.splitlines()) for name, text in contents(ended).items() if not name.endswith(".prompts")}
        print(f"job killed; lines of what it left: {left}")

        begin = time.monotonic()
        job = start(options, prompts, ended)
        while job.poll() is None and not programs(ended):
            time.sleep(0.1)
        wait_for_begun(ended, job)
        status = pathlib.Path(f"/proc/{programs(ended)[0]}/status").read_text()
        os.kill(int(status.split("PPid:")[1].split()[0]), signal.SIGKILL)
        assert job.wait() == 0, "Ray did not make up for the worker"
        print(f"run again, a worker killed: {time.monotonic() - begin:.1f} s")
        assert contents(ended) == contents(whole), "the files differ"
        answers = sum(len(text.splitlines()) for text in contents(ended).values())
        print(f"the same {len(contents(ended))} files, {answers} answers")


if __name__ == "__main__":
    main()
