#!/usr/bin/env python3
"""What the compilers of GPUs that are not here make of the engine's kernels. `./run compilers` runs it; README.md beside it
says how to read what it prints."""
import concurrent.futures
import fnmatch
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import estimate
import machine_code

HERE = Path(__file__).resolve().parent
WORDS = ("alternatives", "every", "float", "int16", "int8", "table", "estimate")
ENGINE_WORDS = WORDS[:5]
BATCH = 12  # modules a process: the shims never give memory back

# What a card of each kind has: units that run workgroups of their own.
CORES = {
    "amd:polaris10": 36, "amd:vega10": 64, "amd:navi21": 80, "amd:navi31": 96, "amd:gfx1201": 64, "nvidia:162": 72,
    "nvidia:172": 82, "intel:dg2": 32, "intel:bmg": 20, "apple": 8,
}  # RX 480, Vega 64, RX 6900 XT, RX 7900 XTX, RX 9070 XT; TITAN RTX, RTX 3090; A770, B580; M1

# Statistics by the names that drivers give them: [fact, driver's names, all of which are added up].
STATISTICS = {
    "amd": {
        "registers": ["VGPRs"], "occupancy": ["Subgroups per SIMD"], "spills": ["Spilled VGPRs", "Spilled SGPRs"],
        "scratch": ["Scratch size"], "instructions": ["Instructions"], "code": ["Code size"], "local": ["LDS size"],
        "cycles": ["Latency"], "throughput": ["Inverse Throughput"],
    },
    "nvidia": {
        "registers": ["Number of GPRs"], "occupancy": ["Max warps/SM"], "spills": ["Spills to memory"],
        "scratch": ["SLM size"], "instructions": ["Instruction count"], "code": ["Code size"],
        "cycles": ["Static cycle count"],
    },
    "intel": {
        "registers": ["Max live registers"], "spills": ["Spills"], "scratch": ["Scratch Memory Size"],
        "instructions": ["Instructions"], "code": ["Code size"], "local": ["Workgroup Memory Size"], "cycles": ["Cycles"],
    },
    "apple": {
        "registers": ["GPRs"], "occupancy": ["Threads"], "spills": ["Spills"], "scratch": ["Scratch"],
        "instructions": ["Instructions"], "code": ["Code size"],
    },
    "adreno": {
        "registers": ["Registers used"], "occupancy": ["Max Waves Per Core"], "instructions": ["Instruction Count"],
    },
}
# Files that tell kernels of one name apart, by their folder; others are the same for all.
SHOWN = ("weights", "finish", "cache", "slice", "input", "moments", "noise", "choice", "rope_norm", "x", "rows")
HIDDEN = ("weights/quantised", "weights/unscaled", "weights/six_bits", "weights/integer", "epilogue/store", "input/storage", "cache/keys")
# Constants that follow from others, or that no one chooses.
QUIET = ("CHUNK_PIECES", "CHUNK_WORDS", "SPLIT")


def vendor(driver):
    return driver.split(":")[0]


class Failure(Exception):
    pass


class Kit:
    """The chroot, and how programs run in it."""

    def __init__(self, folder, program, shaders):
        self.root = folder / "root"
        self.results = folder / "results"
        self.results.mkdir(parents=True, exist_ok=True)
        home = self.root / "pard"
        # The program of one worktree does not replace that of another which runs at the same time.
        self.home = home / f"run.{os.getpid()}"
        self.home.mkdir(parents=True)
        shutil.copy(program, self.home / "compilers")
        shutil.copytree(shaders, self.home / "shaders")

    def inside(self, path):
        return "/" + str(path.relative_to(self.root))

    def run(self, driver, command, **options):
        command = [HERE / "drivers", "on", self.root, driver, *command]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, **options)

    def dump(self, driver, arguments):
        """Has the engine, or single shaders, compiled on `driver`'s adapter; the folder with what came of it."""
        folder = self.home / driver.replace(":", "_")
        folder.mkdir()
        inside = self.inside(folder)
        layer = ["VK_INSTANCE_LAYERS=VK_LAYER_PARD_record", "VK_LAYER_PATH=/pard", f"PARD_RECORD={inside}"]
        done = self.run(driver, [*layer, self.inside(self.home / "compilers"), inside, *arguments])
        if done.returncode != 0:
            raise Failure(f"{driver}: the engine does not run on this adapter:\n{done.stderr.strip()[-2000:]}")
        return folder

    def compile(self, driver, folder, modules):
        """What the compiler of `driver` says of `modules`, by module."""
        options = ["-d", self.inside(folder)]
        for line in (folder / "log").read_text().splitlines():
            match line.split():
                case ["device", robust, robust2]:
                    options += ["-r"] * (robust == "0") + ["-2"] * (robust2 == "0")
                case ["pipeline", _, _, "1"] if "-v" not in options:
                    options.append("-v")
        options = list(dict.fromkeys(options))

        def batch(names):
            """A compiler that crashes or never ends costs its own module."""
            lines = []
            while len(lines) < len(names):
                files = [f"{self.inside(folder)}/{name}.spv" for name in names[len(lines):]]
                done = self.run(driver, ["/pard/pipestats", *options, *files])
                whole = [line for line in done.stdout.splitlines() if line.endswith("}")]
                lines += [json.loads(line) for line in whole]
                if done.returncode != 0 and len(lines) < len(names):
                    lines.append({"module": names[len(lines)], "failure": f"the compiler ends with {done.returncode}"})
                elif not whole:
                    raise Failure(f"{driver}: pipestats says nothing: {done.stderr.strip()[-500:]}")
            return lines

        batches = [modules[start:start + BATCH] for start in range(0, len(modules), BATCH)]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            return {line["module"]: line for lines in pool.map(batch, batches) for line in lines}

    def remove(self):
        shutil.rmtree(self.home)


def facts_of(driver, reported, code, wgsl):
    """The compiler's figures under names that all drivers share, and those of the machine code."""
    facts = {"seconds": reported.get("seconds", 0), "failure": reported.get("failure")}
    executables = reported.get("executables") or [{}]
    statistics = executables[0].get("statistics", {})
    facts["subgroup"] = executables[0].get("subgroup")
    for fact, names in STATISTICS[vendor(driver)].items():
        found = [statistics[name] for name in names if name in statistics]
        if found:
            facts[fact] = sum(found)
    loop = machine_code.analyse(vendor(driver), code)
    if loop:
        facts["loop"] = loop
        table = dict(re.findall(r"const (AT_\w+): u32 = (\d+)u;", wgsl))
        bindings = re.findall(r"@binding\((\w+)\)\s*var<[^>]*>\s*(\w+)", wgsl)
        names = {int(table.get(number, number)): name for number, name in bindings}
        weights = [each for binding, each in loop.pop("bindings").items() if names.get(binding, "").startswith("weights")]
        if weights:
            loop["weight_loads"], loop["weight_bytes"] = (sum(each[at] for each in weights) for at in (0, 1))
        facts["loads_in_flight"] = max(each[2] for each in weights) if weights else loop["in_flight"]
    return {name: value for name, value in facts.items() if value is not None}


def label(files, constants):
    """A kernel's name, the files that tell it apart, and its constants."""
    shown = [file.split("/", 1)[1] for file in files[1:] if file.split("/")[0] in SHOWN and file not in HIDDEN]
    numbers = [f"{name}={value}" for name, value in constants.items() if value and name not in QUIET]
    return " ".join([files[0], *shown, *numbers])


class Kernel:
    """A kernel on one driver: what it is, who uses it, and what its compiler says."""

    def __init__(self, driver, line, uses, facts):
        self.driver, self.module, self.facts = driver, line["module"], facts
        files, constants = line["files"], line["constants"]
        self.label = label(files, constants)
        self.choices = line["choices"]
        self.uses = [use for use in uses if any(each["module"] == self.module for each in use["dispatches"])]
        formats = [file.split("/")[1] for file in files if file.startswith("weights/") and file not in HIDDEN]
        formats = [format for format in formats if not format.endswith("_integer")]
        self.attributes = {
            **constants, "driver": driver, "kernel": files[0], "file": files, "choice": self.choices or ["none"],
            "format": formats, "label": self.label,
        }
        for name in ("model", "matrix", "rows", "role", "op"):
            self.attributes[name] = sorted({use[name] for use in self.uses if name in use})


class Use:
    """An operation of a model on one driver. Its facts are about its workgroups."""

    def __init__(self, driver, line, kernels):
        self.driver, self.line = driver, line
        self.kernels = [kernels.get(each["module"]) for each in line["dispatches"]]
        # Rows may be quantised first; a product is what multiplies them.
        names = [kernel and kernel.attributes["kernel"] for kernel in self.kernels]
        self.own = [at for at, name in enumerate(names) if name != "quantise_rows"]
        self.choices = [line["choice"]]
        self.facts = {}
        names = ("model", "matrix", "format", "op", "role", "rows", "keys")
        words = [f"{name}={line[name]}" if name in ("rows", "keys") else line[name] for name in names if name in line]
        self.label = " ".join(map(str, words))
        self.attributes = {**line, "driver": driver, "choice": self.choices, "label": self.label}
        if line["op"] == "product" and self.own and driver in CORES and self.kernel():
            constants = self.kernel().attributes
            groups = self.workgroups()
            # A lane needs a weight row of each kind that makes an output.
            possible = -(-line["weight_rows"] // (constants.get("LANES", 32) * line["pair"]))
            self.facts = {"workgroups": groups, "fill": groups / min(2 * CORES[driver], possible)}

    def kernel(self):
        return self.kernels[self.own[0]]

    def workgroups(self):
        grids = [self.line["dispatches"][at]["grid"] for at in self.own]
        if "experts" in self.line:
            # Room for as many groups as there can be, most of them empty where experts have several rows.
            return self.groups() * sum(math.prod(grid[1:]) for grid in grids)
        return sum(map(math.prod, grids))

    def groups(self):
        """Groups that rows make by their experts, on average, if they take any with the same chance."""
        (count, used), rows, most = self.line["experts"], self.line["rows"], self.kernel().attributes["ROWS"]
        chance = used / count
        of_rows = lambda some: math.comb(rows, some) * chance**some * (1 - chance)**(rows - some)
        return count * sum(of_rows(some) * math.ceil(some / most) for some in range(1, rows + 1))

    def passes(self):
        """How often each weight that is read at all is multiplied by the rows that share registers."""
        if "experts" in self.line:
            (count, used), rows = self.line["experts"], self.line["rows"]
            return self.groups() / (count * (1 - (1 - used / count)**rows))
        return math.ceil(self.line["rows"] / self.kernel().attributes["ROWS"])


def matches(where, attributes):
    """Whether attributes are what a rule asks for: a pattern, a list of patterns, or a range {"from", "to"}."""
    for name, wanted in where.items():
        values = attributes.get(name)
        values = values if isinstance(values, list) else [values]
        if isinstance(wanted, dict):
            low, high = wanted.get("from", float("-inf")), wanted.get("to", float("inf"))
            fits = [isinstance(value, (int, float)) and low <= value <= high for value in values]
        else:
            patterns = wanted if isinstance(wanted, list) else [wanted]
            fits = [fnmatch.fnmatchcase(str(value), str(pattern)) for value in values for pattern in patterns]
        if not any(fits):
            return False
    return True


def beyond(limits, facts):
    """The limits that facts exceed, as (fact, value, limit in words)."""
    if "failure" in facts:
        return [("failure", facts["failure"], "none")]
    found = []
    for fact, most in limits.get("at_most", {}).items():
        if fact in facts and facts[fact] > most:
            found.append((fact, facts[fact], f"at most {most}"))
    for fact, least in limits.get("at_least", {}).items():
        if fact in facts and facts[fact] < least:
            found.append((fact, facts[fact], f"at least {least}"))
    return found


def check(budgets, kernels, uses):
    """What exceeds its budget, as (rule, item, [(fact, value, limit)]), and the exceptions that were needed."""
    exceeded, needed = [], set()
    for rule in budgets["rules"]:
        items = uses if rule.get("of") == "operations" else kernels
        for item in items:
            if "default" not in item.choices or not matches(rule["where"], item.attributes):
                continue
            found = beyond(rule, item.facts)
            if not found:
                continue
            for number, exception in enumerate(budgets["exceptions"]):
                if exception["rule"] == rule["name"] and matches(exception["where"], item.attributes):
                    needed.add(number)
                    # It takes the place of the rule's limits of the facts that it names.
                    named = {*exception.get("at_most", {}), *exception.get("at_least", {})}
                    found = [each for each in found if each[0] not in named]
                    found += [each for each in beyond(exception, item.facts) if each[0] in named]
            if found:
                exceeded.append((rule["name"], item, found))
    return exceeded, needed


def unneeded(budgets, needed, kernels, uses):
    """Exceptions that some kernel or operation of this run fits, and none needs."""
    items = [*kernels, *uses]
    idle = [exception for number, exception in enumerate(budgets["exceptions"]) if number not in needed]
    return [exception for exception in idle if any(matches(exception["where"], item.attributes) for item in items)]


COLUMNS = ("subgroup", "registers", "occupancy", "spills", "instructions", "cycles", "seconds")
LOOP_COLUMNS = ("alu", "fma", "dot", "matrix", "loads", "scalar_loads", "local", "barriers", "waits")
HEADS = {
    "subgroup": "sub", "registers": "regs", "occupancy": "occ", "instructions": "instr", "seconds": "s",
    "scalar_loads": "scalar", "loads_in_flight": "flight",
}


def number(value):
    if isinstance(value, float):
        return f"{value:.2f}"
    return "-" if value is None else str(value)


def print_table(rows, file=sys.stdout):
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.ljust(widths[0]) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip(), file=file)


def kernel_table(kernels):
    """A line for each kernel, and of its hottest loop."""
    heads = [HEADS.get(name, name) for name in (*COLUMNS, "loads_in_flight")]
    rows = [["kernel", *heads, "| loop:", *[HEADS.get(name, name) for name in LOOP_COLUMNS]]]
    for kernel in sorted(kernels, key=lambda kernel: natural(kernel.label)):
        facts = kernel.facts
        name = kernel.label + ("" if "default" in kernel.choices or not kernel.choices else f" ({', '.join(kernel.choices)})")
        if "failure" in facts:
            rows.append([f"{name}: FAILS: {facts['failure']}"] + [""] * (len(rows[0]) - 1))
            continue
        loop = facts.get("loop", {})
        cells = [number(facts.get(column)) for column in (*COLUMNS, "loads_in_flight")]
        rows.append([name, *cells, f"| {number(loop.get('instructions'))}", *[number(loop.get(column)) for column in LOOP_COLUMNS]])
    return rows


def natural(text):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def exceeded_table(exceeded):
    """A line for each rule, driver, kernel and fact: how many variants exceed it, and the worst."""
    groups = {}
    for rule, item, found in exceeded:
        kernel = item.attributes.get("kernel") or item.attributes["op"]
        for fact, value, limit in found:
            groups.setdefault((rule, item.driver, kernel, fact, limit), []).append((value, item.label))
    rows = [["budget", "driver", "kernel", "count", "fact", "limit", "worst", "of"]]
    for (rule, driver, kernel, fact, limit), found in sorted(groups.items()):
        worst = (min if "least" in limit else max)(found, key=lambda each: each[0])
        rows.append([rule, driver, kernel, str(len(found)), fact, limit, number(worst[0]), worst[1]])
    return rows


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def ask(kit, driver, extra, wanted):
    """The kernels and operations of the engine on `driver`, and where they lie; those kernels compiled that `wanted` fits."""
    folder = kit.dump(driver, [kit.inside(kit.home / "shaders"), *extra])
    uses = read_lines(folder / "uses.jsonl")
    bare = [Kernel(driver, line, uses, {}) for line in read_lines(folder / "kernels.jsonl")]
    bare = [kernel for kernel in bare if matches(wanted, kernel.attributes)]
    facts = compiled(kit, driver, folder, [kernel.module for kernel in bare])
    for kernel in bare:
        kernel.facts = facts[kernel.module]
    by_module = {kernel.module: kernel for kernel in bare}
    operations = [Use(driver, line, by_module) for line in uses]
    operations = [use for use in operations if use.kernels and all(use.kernels)]
    keep(kit.results / driver.replace(":", "_"), folder, bare, uses)
    return folder, bare, operations


def compiled(kit, driver, folder, modules):
    """The facts of `modules`, whose texts lie in `folder`, by the compiler of `driver`."""
    reported, facts = kit.compile(driver, folder, modules), {}
    for module in modules:
        code = folder / f"{module}.txt"
        text = code.read_text(errors="replace") if code.exists() else ""
        facts[module] = facts_of(driver, reported[module], text, (folder / f"{module}.wgsl").read_text())
    return facts


def keep(results, folder, kernels, uses):
    """Keeps text and machine code by readable names, and all figures."""
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    lines = []
    for at, kernel in enumerate(sorted(kernels, key=lambda kernel: natural(kernel.label))):
        name = f"{at:04}_{kernel.attributes['kernel']}"
        for suffix in ("wgsl", "spv", "txt"):
            if (folder / f"{kernel.module}.{suffix}").exists():
                shutil.copy(folder / f"{kernel.module}.{suffix}", results / f"{name}.{suffix}")
        lines.append(json.dumps({"file": name, "label": kernel.label, "module": kernel.module, "choices": kernel.choices, **kernel.facts}))
    (results / "kernels.jsonl").write_text("".join(line + "\n" for line in lines))
    (results / "uses.jsonl").write_text("".join(json.dumps(use) + "\n" for use in uses))


def single_files(kit, drivers, files):
    """What each driver makes of shaders that are files of their own."""
    for file in files:
        shutil.copy(file, kit.home / "shaders" / Path(file).name)
    for driver in drivers:
        folder = kit.dump(driver, [kit.inside(kit.home / "shaders" / Path(file).name) for file in files])
        lines = read_lines(folder / "files.jsonl")
        reported = kit.compile(driver, folder, [line["module"] for line in lines])
        rows, results = [], kit.results / driver.replace(":", "_")
        results.mkdir(exist_ok=True)
        for line in lines:
            module, name = line["module"], Path(line["file"]).stem
            text = ""
            if (folder / f"{module}.txt").exists():
                text = (folder / f"{module}.txt").read_text(errors="replace")
                shutil.copy(folder / f"{module}.txt", results / f"{name}.txt")
            wgsl = (kit.home / "shaders" / f"{name}.wgsl").read_text()
            line = {"module": module, "files": [name], "constants": {}, "choices": []}
            rows.append(Kernel(driver, line, [], facts_of(driver, reported[module], text, wgsl)))
        print(f"\n{driver} (machine code: {results})")
        print_table(kernel_table(rows))
    return 0


def report(kit, drivers, words, wanted, budgets):
    extra = [word for word in words if word in ENGINE_WORDS]
    kernels, uses, folders = [], [], {}
    for driver in drivers:
        folder, some, operations = ask(kit, driver, extra, wanted)
        adapter = json.loads((folder / "adapter.json").read_text())
        slowest = max(some, key=lambda kernel: kernel.facts["seconds"], default=None)
        spilling = sum(kernel.facts.get("spills", 0) > 0 for kernel in some)
        failing = sum("failure" in kernel.facts for kernel in some)
        print(f"{driver}: {adapter['name']}; plan: {adapter['plan']}")
        if slowest:
            print(f"    {len(some)} kernels: {failing} fail, {spilling} spill; {sum(k.facts['seconds'] for k in some):.1f} s to compile,"
                  f" at most {slowest.facts['seconds']:.2f} s ({slowest.label})")
        if wanted or "table" in words:
            print_table(kernel_table(some))
        sys.stdout.flush()
        kernels += some
        uses += operations
        folders[driver] = folder
    if "estimate" in words:
        estimates(kit, folders, kernels, uses, "table" in words)
    exceeded, needed = check(budgets, kernels, uses)
    for exception in unneeded(budgets, needed, kernels, uses):
        print(f"an exception that is no longer needed: {exception['rule']}, {json.dumps(exception['where'])}")
    if exceeded:
        print("\nThese exceed their budgets (benches/compilers/budgets.json):")
        print_table(exceeded_table(exceeded))
        return 1
    excused = f" but for {len(needed)} exceptions" if needed else ""
    print(f"\nall {len(kernels)} kernels and {len(uses)} operations keep their budgets{excused}")
    return 0


def estimates(kit, folders, kernels, uses, details):
    """What the model makes of all products, with RADV's count of every kernel, whichever adapter asked for it."""
    counted = {kernel.module: kernel.facts for kernel in kernels if kernel.driver == estimate.COUNTS}
    for driver in estimate.DRIVERS:
        others = {kernel.module for kernel in kernels if kernel.driver == driver and kernel.uses} - counted.keys()
        counted |= compiled(kit, estimate.COUNTS, folders[driver], sorted(others))
    print()
    by_driver = {driver: [use for use in uses if use.driver == driver] for driver in estimate.DRIVERS}
    estimate.report(by_driver, counted, print_table, details)


def main(program, folder, shaders, *arguments):
    arguments = [argument.removeprefix("--") for argument in arguments]
    budgets = json.loads((HERE / "budgets.json").read_text())
    files = [argument for argument in arguments if argument.endswith(".wgsl")]
    filters = [argument for argument in arguments if "=" in argument and argument not in files]
    words = [argument for argument in arguments if argument in WORDS]
    drivers = [argument for argument in arguments if argument not in (*files, *filters, *words)]
    if "estimate" in words:
        drivers += [driver for driver in estimate.DRIVERS if driver not in drivers]
    drivers = drivers or budgets["drivers"]
    wanted = {}
    for given in filters:
        name, value = given.split("=", 1)
        wanted[name] = value.split(",")
    for driver in drivers:
        if vendor(driver) not in STATISTICS:
            raise Failure(f"unknown driver {driver!r}; there are {', '.join(budgets['drivers'])}, and other chips of these vendors")
    kit = Kit(Path(folder).resolve(), program, shaders)
    try:
        if files:
            return single_files(kit, drivers, files)
        return report(kit, drivers, words, wanted, budgets)
    finally:
        kit.remove()


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except Failure as failure:
        print(f"compilers: {failure}", file=sys.stderr)
        sys.exit(2)
