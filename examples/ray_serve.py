"""OpenAI's interface over any number of GPUs and machines: replicas of `pard serve` behind Ray Serve.

    pip install pard-llm "ray[serve]"
    cd examples && serve run ray_serve:application model=smollm2 max_replicas=4

then answers at http://127.0.0.1:8000/v1 as one server does. The options, of which all may be left out: `model`, `draft`,
`parallel` (answers that a replica writes in one pass, 8), `context`, `gpus` (of a replica: 1; 0 runs on the software driver),
`min_replicas` and `max_replicas` (1), between which Ray chooses by what is asked at once.

A replica has a GPU of its own. One that does not answer /health is replaced, and one whose server has ended is at once. What it
was writing ends with an error (status 500, or a stream without its last line), and a client may ask again: for one seed the
text is the same on any replica.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading

import aiohttp
import ray
from ray import serve
from starlette.responses import Response, StreamingResponse

PARD = [sys.executable, "-m", "pard"]
DEFAULTS = {"model": "smollm2", "draft": "", "parallel": 8, "context": 0, "gpus": 1, "min_replicas": 1, "max_replicas": 1}
# Headers of requests and answers that are handed on.
PASSED_ON = {"content-type", "authorization", "accept", "retry-after"}


def end_with_parent():
    """Lets the server end with its replica even where that is killed, so that the GPU is free for the next one (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def adapter():
    """The options that choose the GPU which Ray gave this replica. Vulkan heeds no CUDA_VISIBLE_DEVICES."""
    given = ray.get_runtime_context().get_accelerator_ids().get("GPU")
    if not given:
        return []
    adapters = json.loads(subprocess.run([*PARD, "devices", "--json"], check=True, stdout=subprocess.PIPE).stdout)
    cards = [adapter["index"] for adapter in adapters if adapter["type"] == "discrete"]
    if int(given[0]) >= len(cards):
        raise RuntimeError(f"Ray gave GPU {given[0]}, and `pard devices` lists {len(cards)} discrete ones")
    return ["--device", str(cards[int(given[0])])]


class Server:
    """A replica: `pard serve` on a port of its machine, and its requests and answers."""

    def __init__(self, arguments):
        command = [*PARD, "serve", "--port", "0", *arguments, *adapter()]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=end_with_parent)
        for line in self.process.stderr:
            print(line, end="", file=sys.stderr)
            if "listening on" in line:
                self.address = line.split()[-1]
            if line.strip() == "ready":
                break
        else:
            raise RuntimeError(f"`{' '.join(command)}` ended with {self.process.wait()}")
        self.client, self.ending = None, False
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        """Passes on what the server says, and ends with it, so that Ray starts another replica at once."""
        for line in self.process.stderr:
            print(line, end="", file=sys.stderr)
        if not self.ending:
            os._exit(1)

    def __del__(self):
        self.ending = True
        self.process.terminate()

    async def check_health(self):
        async with self.ask("GET", "/health") as answer:
            answer.raise_for_status()

    def ask(self, method, path, **options):
        if self.client is None:  # made here, since it belongs to the running loop
            self.client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        return self.client.request(method, self.address + path, **options)

    async def __call__(self, request):
        headers = {name: value for name, value in request.headers.items() if name in PASSED_ON}
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        answer = await self.ask(request.method, path, headers=headers, data=await request.body())
        headers = {name: value for name, value in answer.headers.items() if name.lower() in PASSED_ON}
        if "event-stream" not in headers.get("content-type", ""):
            async with answer:
                return Response(await answer.read(), answer.status, headers)
        return StreamingResponse(self.events(answer), answer.status, headers)

    async def events(self, answer):
        """The answer as it is written. A client that goes away ends it, and the server notices."""
        async with answer:
            async for piece in answer.content.iter_any():
                yield piece


def application(options: dict):
    """The application for `serve run` and `serve.run`."""
    unknown = sorted(options.keys() - DEFAULTS.keys())
    if unknown:
        raise ValueError(f"there is no option {unknown[0]}; there are {', '.join(DEFAULTS)}")
    options = {name: type(default)(options.get(name, default)) for name, default in DEFAULTS.items()}
    arguments = ["-m", options["model"], "--parallel", str(options["parallel"])]
    arguments += ["-d", options["draft"]] if options["draft"] else []
    arguments += ["-c", str(options["context"])] if options["context"] else []
    return (
        serve.deployment(Server)
        .options(
            ray_actor_options={"num_gpus": options["gpus"], "num_cpus": 1},
            autoscaling_config={
                "min_replicas": options["min_replicas"],
                "max_replicas": options["max_replicas"],
                "target_ongoing_requests": options["parallel"],
            },
            # Requests past this wait for any replica; those in a replica's own queue cannot move.
            max_ongoing_requests=2 * options["parallel"],
            health_check_period_s=5,
            health_check_timeout_s=30,
        )
        .bind(arguments)
    )
