"""What machine code is made of: RADV's (AMD), NVK's (NVIDIA) and ANV's (Intel), as pipestats writes it.

`analyse` counts the hottest loop, the one with the most multiply-adds: instructions of each kind, and loads in flight. Those
are what a subgroup has asked of memory and not yet waited for, at most, followed over two turns of the loop, since a loop may
ask for what its next turn needs. Loads of one binding are told apart where the code shows it (AMD, Intel).
"""
import re
from collections import Counter

KINDS = ("fma", "dot", "matrix", "alu", "loads", "scalar_loads", "local", "stores", "barriers", "waits")


class Instruction:
    """One instruction: its kinds, and what it asks of memory or waits for."""

    def __init__(self, kinds=(), load_bytes=0, tokens=(), waits=(), binding=None, left=None):
        self.kinds = Counter(kinds)
        self.load_bytes = load_bytes
        self.tokens = tokens  # what a wait for this load names
        self.waits = waits  # loads whose tokens are among these have arrived
        self.left = left  # or: no more than so many loads are still on their way (AMD)
        self.binding = binding


def analyse(vendor, text):
    """The facts of the hottest loop of `text`, machine code of a driver of `vendor`; None if it cannot be read."""
    parse = {"amd": parse_amd, "nvidia": parse_nvidia, "intel": parse_intel}.get(vendor)
    if parse is None or not text:
        return None
    code, loops = parse(text)
    bodies = [code[start:end + 1] for start, end in innermost(loops)] or [code]
    # A loop with little arithmetic is a search or a tail.
    heavy = [body for body in bodies if work(body) >= 8] or [max(bodies, key=work)]
    heavy = [body for body in heavy if not any(is_remainder(body, other) for other in heavy)]
    hottest = max(heavy, key=lambda body: (work(body), len(body)))
    facts = {"instructions": len(hottest), **{kind: sum(each.kinds[kind] for each in hottest) for kind in KINDS}}
    facts["load_bytes"] = sum(each.load_bytes for each in hottest if each.kinds["loads"])
    facts["scalar_bytes"] = sum(each.load_bytes for each in hottest if each.kinds["scalar_loads"])
    facts["in_flight"] = min((in_flight(body) for body in heavy if any(each.kinds["loads"] for each in body)), default=None)
    # By binding: loads of a turn, their bytes, and loads in flight.
    facts["bindings"] = {}
    for binding in sorted({each.binding for each in hottest if each.binding is not None}):
        sizes = [each.load_bytes for each in hottest if each.binding == binding]
        facts["bindings"][binding] = [len(sizes), sum(sizes), in_flight(hottest, binding)]
    return facts


def work(body):
    """Multiply-adds, each as many as an instruction does for a lane."""
    return sum(each.kinds["fma"] + 4 * each.kinds["dot"] + 64 * each.kinds["matrix"] for each in body)


def is_remainder(body, other):
    """Whether `body` does in one turn what `other`, written out up to 16 times, does several times: it takes what is left
    over."""
    loads = [sum(each.kinds["loads"] for each in one) for one in (body, other)]
    times, rest = divmod(work(other), max(1, work(body)))
    return 1 < times <= 16 and rest == 0 and times * loads[0] >= loads[1] > loads[0]


def innermost(loops):
    """Loops that hold no other."""
    loops = sorted(set(loops))
    holds = lambda outer, inner: outer != inner and outer[0] <= inner[0] and inner[1] <= outer[1]
    return [loop for loop in loops if not any(holds(loop, other) for other in loops)]


def in_flight(body, binding=None):
    """The most loads that are on their way at once, of one binding or of all."""
    flight, most = [], 0
    for each in body + body:
        if each.left is not None:
            flight = flight[max(0, len(flight) - each.left):]
        if each.waits:
            flight = [load for load in flight if not set(load.tokens) & set(each.waits)]
        if each.kinds["loads"]:
            flight.append(each)
            most = max(most, sum(binding is None or load.binding == binding for load in flight))
    return most


def parse_amd(text):
    """ACO's assembly. Vector loads arrive in order, and waits say how many may be left."""
    code, at, jumps = [], {}, []
    descriptors = {}  # scalar register: binding
    for line in text.splitlines():
        line = line.split(";")[0].strip()
        if re.fullmatch(r"BB\d+:", line):
            at[line[:-1]] = len(code)
            continue
        if not line or line.startswith("("):
            continue
        name = line.split()[0]
        if jump := re.match(r"s_c?branch\S*\s+(BB\d+)", line):
            jumps.append((jump[1], len(code)))
        if name.startswith("v_"):
            parts = [part.strip().split()[0] for part in line.split("::")]
            kinds = ["alu"]
            for part in parts:
                if re.search(r"wmma|mfma", part):
                    kinds.append("matrix")
                elif re.match(r"v_(dual_)?dot", part):
                    kinds.append("dot")
                elif re.match(r"v_(dual_)?(pk_)?(fma|mad|mac)", part):
                    kinds.append("fma")
            code.append(Instruction(kinds))
        elif re.match(r"(buffer|global|flat)_load", name):
            words = re.search(r"dword(?:x(\d))?|_[bui](\d+)", name)
            size = 4 if not words else int(words[2]) // 8 if words[2] else 4 * int(words[1] or 1)
            resource = re.search(r"s\[(\d+):\d+\]", line)
            binding = descriptors.get(int(resource[1])) if resource else None
            code.append(Instruction(["loads"], load_bytes=size, binding=binding))
        elif re.match(r"s_(buffer_)?load", name):
            # Descriptors of 16 bytes lie one after the other in the descriptor set.
            if load := re.match(r"s_load_(?:dwordx|b)(\d+) s\[(\d+):\d+\], s\[\d+:\d+\], (0x[0-9a-f]+|\d+|null)", line):
                first = 0 if load[3] == "null" else int(load[3], 0)
                count = int(load[1]) // (128 if "_b" in name else 4)
                for number in range(count):
                    descriptors[int(load[2]) + 4 * number] = first // 16 + number
            words = re.search(r"dword(?:x(\d+))?|_b(\d+)", name)
            size = (int(words[2]) // 8 if words[2] else 4 * int(words[1] or 1)) if words else 4
            code.append(Instruction(["scalar_loads"], load_bytes=size))
        elif name.startswith("ds_"):
            code.append(Instruction(["local"]))
        elif "store" in name or "atomic" in name:
            code.append(Instruction(["stores"]))
        elif name.startswith(("s_waitcnt", "s_wait_")):
            left = re.search(r"vmcnt\((\d+)\)", line) or re.search(r"s_wait_loadcnt(?:_dscnt)?\s+(0x[0-9a-f]+|\d+)", line)
            count = None
            if left:
                count = int(left[1], 0)
                count = count >> 8 if "dscnt" in name else count
            code.append(Instruction(["waits"] if left else [], left=count))
        else:
            code.append(Instruction(["barriers"] if "barrier" in name else []))
    return code, [(at[label], end) for label, end in jumps if at.get(label, end) < end]


def parse_nvidia(text):
    """NAK's assembly. A load names a scoreboard (wr), and a later instruction waits for those of its mask (wt)."""
    code, at, jumps = [], {}, []
    for line in text.splitlines():
        if block := re.match(r"\s*block(?:\.u)? \d+ (L\d+)", line):
            at[block[1]] = len(code)
            continue
        if "//" not in line:
            continue
        text, notes = line.split("//", 1)
        text = re.sub(r"^\s*@\S+", "", text)
        name = text.split("=")[-1].split()[0] if text.split("=")[-1].split() else ""
        if jump := re.search(r"\bbra .*?(L\d+)", text):
            jumps.append((jump[1], len(code)))
        mask = re.search(r"wt=([01]+)", notes)
        waits = [board for board, bit in enumerate(reversed(mask[1])) if bit == "1"] if mask else []
        board = re.search(r"wr:(\d)", notes)
        width = re.search(r"\.b(\d+)", name)
        kinds, size = [], 0
        if name.startswith("ld.global") or name.startswith("ldg"):
            kinds, size = ["loads"], int(width[1]) // 8 if width else 4
        elif name.startswith(("ld.shared", "lds", "st.shared", "sts")) or re.match(r"(ld|st)\.\S*shared", name):
            kinds = ["local"]
        elif name.startswith("ldc"):
            kinds = ["scalar_loads"]
        elif name.startswith("st"):
            kinds = ["stores"]
        elif name.startswith("bar"):
            kinds = ["barriers"]
        elif name.startswith(("hmma", "imma")):
            kinds = ["matrix"]
        elif name.startswith(("idp", "dp4a")):
            kinds = ["dot", "alu"]
        elif name.startswith(("ffma", "hfma")):
            kinds = ["fma", "alu"]
        elif not name.startswith(("bra", "nop", "bsync", "bssy", "exit")):
            kinds = ["alu"]
        tokens = [int(board[1])] if board else []
        if waits:
            kinds = kinds + ["waits"]
        code.append(Instruction(kinds, load_bytes=size, tokens=tokens, waits=waits))
    return code, [(at[label], end) for label, end in jumps if at.get(label, end) < end]


def parse_intel(text):
    """GEN assembly. A message has a token ($3), and instructions wait for what it writes ($3.dst)."""
    code, at, jumps = [], {}, []
    lines = iter(text.splitlines())
    for line in lines:
        line = line.strip()
        if label := re.fullmatch(r"(LABEL\d+):", line):
            at[label[1]] = len(code)
            continue
        name = re.sub(r"^\([^)]*\)\s*", "", line).split("(")[0].split(".")[0].strip()
        if not re.match(r"[a-z]\w*( \w+)?$", name):
            continue
        if name.startswith("send"):
            line += " " + next(lines, "")
        if jump := re.match(r"(?:\([^)]*\) )?while.*?JIP:\s*(LABEL\d+)", line):
            jumps.append((jump[1], len(code)))
        waits = re.findall(r"(\$\d+)\.dst", line)
        kinds, size, tokens, binding = [], 0, [], None
        if name.startswith("send"):
            if "barrier" in line:
                kinds = ["barriers"]
            elif "slm" in line:
                kinds = ["local"]
            elif "( load" in line or "( atomic" in line or "read" in line:
                # One lane's transposed load serves the whole subgroup.
                kinds = ["scalar_loads"] if "transpose" in line else ["loads"]
                values = re.search(r"d(\d+), V(\d+)", line)
                size = int(values[1]) // 8 * int(values[2]) if values else 4
            elif "store" in line or "write" in line:
                kinds = ["stores"]
            tokens = re.findall(r"(\$\d+)(?![.\d])", line)[-1:]
            index = re.search(r"BTI (\d+)", line)
            binding = int(index[1]) if index and kinds == ["loads"] else None
        elif name in ("mad", "mac", "pln"):
            kinds = ["fma", "alu"]
        elif name == "dp4a":
            kinds = ["dot", "alu"]
        elif name == "dpas":
            kinds = ["matrix"]
        elif name not in ("if", "else", "endif", "while", "break", "cont", "halt", "sync", "nop", "jmpi"):
            kinds = ["alu"]
        if waits:
            kinds = kinds + ["waits"]
        code.append(Instruction(kinds, load_bytes=size, tokens=tokens, waits=waits, binding=binding))
    return code, [(at[label], end) for label, end in jumps if at.get(label, end) < end]
