#!/usr/bin/env bash
# Plain greedy decoding by llama.cpp and by this engine, on the same weights: SmolLM2-135M-Instruct in F16, or a GGUF file
# as it is.
#
#   benches/llama_cpp.sh [TOKENS] [RUNS] [FILE.gguf]       32 tokens and 5 runs unless told otherwise
#
# llama.cpp comes as node-llama-cpp's prebuilt binaries from npm, into a temporary folder; nothing is built from source,
# and nothing else is downloaded. It runs on Vulkan and on the CPU; WGPU_ADAPTER_NAME and GGML_VK_VISIBLE_DEVICES choose
# the adapter of either engine, VK_DRIVER_FILES that of both. Every run is a process of its own that decodes TOKENS
# tokens after one, once its kernels are compiled; the three take turns, and each one's median counts. Needs Linux on
# x64, node 20 or newer with npm, Python 3.9 or newer with pip, and cargo. THREADS: llama.cpp's on the CPU (all cores).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VERSION=3.22.1 # of node-llama-cpp
tokens=${1:-32}
runs=${2:-5}
threads=${THREADS:-$(nproc)}
# Named, llama.cpp takes software drivers too, which it would pass over.
export GGML_VK_VISIBLE_DEVICES=${GGML_VK_VISIBLE_DEVICES:-0}
# Without a desktop session Mesa's device selection prints a harmless error line for every process.
[ -n "${XDG_RUNTIME_DIR:-}" ] || export NODEVICE_SELECT=1

for program in node npm python3 cargo; do
    command -v "$program" >/dev/null || { echo "llama_cpp.sh: there is no $program here" >&2; exit 1; }
done
source=${3:-}
[ -n "$source" ] || source=$(./run model)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo build --locked --release --quiet
pard=${CARGO_TARGET_DIR:-target}/release/pard

# The packages for other systems and for CUDA are optional, and large.
npm install --prefix "$work" --silent --no-fund --no-audit --ignore-scripts --omit=optional \
    "node-llama-cpp@$VERSION" "@node-llama-cpp/linux-x64@$VERSION" "@node-llama-cpp/linux-x64-vulkan@$VERSION" >&2
export PYTHONPATH=$work/python PIP_ROOT_USER_ACTION=ignore
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$PYTHONPATH" gguf numpy >&2

# Matrices in 16 bits; llama.cpp wants vectors in 32.
[ $# -lt 3 ] && python3 - "$source" "$work/model.gguf" <<'PYTHON'
import sys

import numpy
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

source = GGUFReader(sys.argv[1])
target = GGUFWriter(sys.argv[2], source.get_field("general.architecture").contents())
for field in source.fields.values():
    if field.name == "general.architecture" or field.name.startswith("GGUF."):
        continue
    value = 1 if field.name == "general.file_type" else field.contents()  # 1: mostly F16
    inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
    target.add_key_value(field.name, value, field.types[0], inner)
for tensor in source.tensors:
    element = numpy.float16 if len(tensor.shape) > 1 else numpy.float32
    target.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(element))
target.write_header_to_file()
target.write_kv_data_to_file()
target.write_tensors_to_file()
target.close()
PYTHON
[ $# -lt 3 ] || ln -s "$(realpath "$source")" "$work/model.gguf"

cat >"$work/decode.mjs" <<'JAVASCRIPT'
import { getLlama } from "node-llama-cpp";

const [path, gpu, threads, tokens] = process.argv.slice(2);
const options = { build: "never", skipDownload: true, logLevel: "error", maxThreads: Number(threads) };
const llama = await getLlama({ ...options, gpu: gpu === "vulkan" ? gpu : false });
const unchecked = { ignoreMemorySafetyChecks: true };
const model = await llama.loadModel({ modelPath: path, gpuLayers: gpu === "vulkan" ? "max" : 0, ...unchecked });
const context = await model.createContext({ contextSize: Number(tokens) + 32, threads: Number(threads), ...unchecked });
const sequence = context.getSequence();

// Greedy, from one token, past any end of text: what `pard bench --tg` does.
async function decode(count) {
    await sequence.clearHistory();
    const begin = performance.now();
    let done = 0;
    for await (const _ of sequence.evaluate([model.tokens.bos], { temperature: 0, yieldEogToken: true }))
        if (++done === count) break;
    return (1000 * done) / (performance.now() - begin);
}

await decode(4);
const speed = await decode(Number(tokens));
const device = llama.gpu ? `Vulkan: ${(await llama.getGpuDeviceNames()).join(", ")}` : `CPU, ${threads} threads`;
console.log(JSON.stringify({ speed, device, release: llama.llamaCppRelease.release }));
process.exit(0);
JAVASCRIPT

llama() {
    node "$work/decode.mjs" "$work/model.gguf" "$1" "$threads" "$tokens" >>"$work/$1"
}

for run in $(seq "$runs"); do
    echo "run $run of $runs" >&2
    llama vulkan
    llama cpu
    "$pard" bench -m "$work/model.gguf" --tg "$tokens" -r 1 -o json -q >>"$work/pard"
done

# Medians, a row each.
python3 - "$work" "$VERSION" <<'PYTHON'
import json, pathlib, statistics, sys

work, version = pathlib.Path(sys.argv[1]), sys.argv[2]
vulkan, cpu, pard = ([json.loads(line) for line in open(work / name)] for name in ["vulkan", "cpu", "pard"])
pard = [tests[0] for tests in pard]
engine = f"llama.cpp {cpu[0]['release']} (node-llama-cpp {version})"
rows = [(engine, runs[0]["device"], [run["speed"] for run in runs]) for runs in [vulkan, cpu]]
rows.append((f"pard {pard[0]['version']}", pard[0]["gpu_info"], [run["avg_ts"] for run in pard]))
print(f"| engine | runs on | {pard[0]['test']}, tokens/s | runs |\n|---|---|--:|---|")
for engine, device, speeds in rows:
    print(f"| {engine} | {device} | {statistics.median(speeds):.2f} | {' '.join(f'{speed:.2f}' for speed in speeds)} |")
PYTHON
