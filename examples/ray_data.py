"""A model's answers to a large file of prompts, on any number of GPUs and machines: `pard respond` under Ray Data.

    pip install pard-llm "ray[data]"
    python examples/ray_data.py prompts.jsonl answers --part 1000 --workers 4 -- -m smollm2 -n 256

cuts the file into parts of so many lines, and writes each part's conversations to answers/part-00000.jsonl and so on, in the
order of the prompts; `index` counts them through all parts. What stands after `--` is for `pard respond`. Files and folder lie
where every machine sees them. Run again after a failure, it goes on where it was: parts that are there are kept, and one that
was begun keeps its conversations. The files are the same, however often that was, for a seed names every draw.
"""

import argparse
import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys

import ray

PARD = [sys.executable, "-m", "pard"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="-- OPTIONS of `pard respond`")
    parser.add_argument("prompts", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--part", type=int, default=1000, help="prompts of a part")
    parser.add_argument("--workers", type=int, default=1, help="parts that are answered at once")
    parser.add_argument("--gpus", type=float, default=1, help="GPUs of a worker; 0 runs on the software driver")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    return parser.parse_args(words[:cut], argparse.Namespace(respond=words[cut + 1 :]))


def parts(prompts, size):
    """Offsets in the file at which each part begins and ends, so that no process has to hold all of it."""
    found, end = [], 0
    with open(prompts, "rb") as file:
        for number, line in enumerate(file):
            if number % size == 0:
                found.append({"part": number // size, "first": number, "begin": end})
            end += len(line)
            found[-1]["end"] = end
    return found


def end_with_parent():
    """Lets the program end with its worker even where that is killed, so that no two write to one file (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def adapter():
    """The options that choose the GPU which Ray gave this worker. Vulkan heeds no CUDA_VISIBLE_DEVICES."""
    given = ray.get_runtime_context().get_accelerator_ids().get("GPU")
    if not given:
        return []
    adapters = json.loads(subprocess.run([*PARD, "devices", "--json"], check=True, stdout=subprocess.PIPE).stdout)
    cards = [adapter["index"] for adapter in adapters if adapter["type"] == "discrete"]
    if int(given[0]) >= len(cards):
        raise RuntimeError(f"Ray gave GPU {given[0]}, and `pard devices` lists {len(cards)} discrete ones")
    return ["--device", str(cards[int(given[0])])]


def respond(row, options):
    """Answers a part, or what is left of it."""
    done = options.out / f"part-{row['part']:05}.jsonl"
    prompts, begun = done.with_suffix(".prompts"), done.with_suffix(".begun")
    with open(options.prompts, "rb") as file:
        file.seek(row["begin"])
        prompts.write_bytes(file.read(row["end"] - row["begin"]))
    command = [*PARD, "respond", "--quiet", "--prompts", prompts, "--out", begun, *options.respond, *adapter()]
    program = subprocess.Popen(command, preexec_fn=end_with_parent)
    if program.wait() != 0:
        raise RuntimeError(f"part {row['part']}: `pard respond` ended with {program.returncode}")
    # Answers are written in the order in which they are done.
    answers = sorted(map(json.loads, begun.read_text(encoding="utf-8").splitlines()), key=lambda answer: answer["index"])
    with open(begun.with_suffix(".sorted"), "w", encoding="utf-8") as file:
        for answer in answers:
            answer["index"] += row["first"]
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")
    os.replace(file.name, done)
    prompts.unlink()
    begun.unlink()
    return {"part": row["part"], "answers": len(answers)}


def main():
    options = arguments()
    options.out = options.out.absolute()
    options.prompts = options.prompts.absolute()
    options.out.mkdir(parents=True, exist_ok=True)
    every = parts(options.prompts, options.part)
    left = [row for row in every if not (options.out / f"part-{row['part']:05}.jsonl").exists()]
    print(f"{len(every)} parts, {len(every) - len(left)} of them done")
    if not left:
        return
    # One block for each part, so that Ray can spread them.
    rows = ray.data.from_items(left, override_num_blocks=len(left))
    answered = rows.map(respond, fn_args=[options], num_gpus=options.gpus, num_cpus=1, concurrency=options.workers)
    for row in answered.iter_rows():
        print(f"part {row['part']}: {row['answers']} answers", flush=True)


if __name__ == "__main__":
    main()
