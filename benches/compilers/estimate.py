"""Estimated times of products, from what compilers made of their kernels. `./run compilers estimate` prints them.

The model: a product takes as long as the busiest of four resources would take alone. Nothing was measured; caches but the
first, launches (2 to 5 us a dispatch) and everything between products are left out, so that times are lower bounds, and their
ratios are what to look at.

    memory      weight bytes / bandwidth
    arithmetic  rounds * weights of a workgroup * instructions a weight / (lanes * clock)
    L1          rounds * weights of a workgroup * bytes that its lanes load a weight / (L1 bytes a clock * clock)
    flight      weight bytes * latency / (lanes that run at once * bytes that each has on their way)

    rounds              turns of the busiest unit: workgroups / units, in whole turns where a unit gets few of them
    weights of a group  weights * passes over them / workgroups; the engine's own dispatch says how many there are, and
                        its kernel's ROWS how many passes the rows take. Of experts: those that rows take, and the groups
                        that they make, on average, if a row takes any with the same chance
    instructions        vector instructions of the hottest loop
    loaded bytes        of the hottest loop
    bytes on their way  loads of weights in flight * their size
    lanes at once       from the compiler's occupancy, but no more than were dispatched

Instructions are those that RADV writes for RDNA3, for all GPUs alike, since its code with robust buffer access is that
without; NVK's is not, and NVIDIA's own driver is unknown. Loads are those of the GPU's own compiler for AMD and Intel. RADV's
stand in for those of NVIDIA and Apple, with what it loads once for a subgroup counted for each lane, as NVK and Honeykrisp
have it.

Weights of a turn of the loop: as many pieces of 8 as divide a run, have that many multiply-adds in it, and are no more than
was loaded. Of integer products the loop's dot products tell, a weight taking one for each byte of x; the loop over the
blocks of a run may be one of its own, without loads of weights: all those of a run are on their way then before it begins.
"""
import math
from collections import namedtuple

# Bandwidth in GB/s and clock in GHz are the vendors' for each card (boost clock). Lanes are f32 multiply-adds a unit starts in
# a clock, without RDNA3's dual issue, which its compiler seldom finds. L1 is in bytes a clock and unit: RDNA white paper (64),
# NVIDIA's Ada and Hopper white papers (128); Xe2's and Apple's are not published, and 64 is assumed. The latency of a load
# from memory under load, in us, is an assumption: about twice what Chips and Cheese measured on idle cards.
Gpu = namedtuple("Gpu", "name driver units lanes clock bandwidth l1 latency")
GPUS = [
    Gpu("RX 7900 XTX", "amd:navi31", 96, 64, 2.5, 960, 64, 0.6),
    Gpu("RTX 4090", "nvidia:172", 128, 128, 2.52, 1008, 128, 0.6),
    Gpu("Arc B580", "intel:bmg", 20, 128, 2.67, 456, 64, 0.7),
    Gpu("M2 Max", "apple", 38, 128, 1.4, 400, 64, 0.7),
    Gpu("H100 SXM", "nvidia:172", 132, 128, 1.83, 3350, 128, 0.6),
]
DRIVERS = sorted({gpu.driver for gpu in GPUS})
COUNTS = "amd:navi31"  # whose instructions are counted
# Bytes of a weight without its scales.
BYTES = {"bf16": 2, "f16": 2, "f32": 4, "q8_0": 1, "q6_k": 0.75, "q4_k": 0.5}
RUN_OF_INTEGERS = 64  # weights of a row that a lane of an integer product asks for at once
ROWS = (1, 2, 4, 8, 13, 16, 32)
RESOURCES = ("memory", "arithmetic", "L1", "flight")


def resident(gpu, facts):
    """Lanes of one unit that run at once."""
    occupancy, subgroup = facts.get("occupancy"), facts.get("subgroup") or 32
    if gpu.driver.startswith("amd"):
        return 2 * occupancy * subgroup  # two SIMDs a unit
    if gpu.driver.startswith("nvidia"):
        return 32 * occupancy
    if gpu.driver.startswith("intel"):
        return 64 * subgroup  # 8 vector engines of 8 threads
    return occupancy


def turn(kernel, loop, weight_bytes):
    """Weights that a lane multiplies in a turn of the hottest loop; None if the kernel is none that this model knows."""
    constants = kernel.attributes
    if constants["kernel"] == "matmul_integer":
        planes = 2 if "planes/two" in constants["file"] else 1
        return 4 * loop["dot"] // (planes * constants["ROWS"]) or None
    if not {"RUN", "BLOCKS", "ROWS"} <= constants.keys():
        return None
    piece = 8 * constants["BLOCKS"]
    products = loop["fma"] + 4 * loop["dot"]
    fits = [
        pieces for pieces in range(1, constants["RUN"] + 1)
        if constants["RUN"] % pieces == 0 and pieces * piece * constants["ROWS"] <= products
        and pieces * piece * BYTES[kernel.attributes["format"][0]] <= weight_bytes
    ]
    return max(fits) * piece if fits else None


def seconds(gpu, use, own, counted):
    """The time of each resource for one operation, in us, or None if the model does not know the kernel. `own` are the facts
    of its kernel by the GPU's compiler, `counted` those by RADV's."""
    line, kernel = use.line, use.kernel()
    loop = counted.get("loop")
    format = line["format"]
    if not loop or format not in BYTES:
        return None
    bytes_of = lambda facts: facts["loop"].get("weight_bytes") or facts["loop"]["load_bytes"]
    weights = turn(kernel, loop, bytes_of(counted))
    if weights is None:
        return None
    loads = own if gpu.driver.startswith(("amd", "intel")) else counted
    loads_weights = turn(kernel, loads["loop"], bytes_of(loads)) or weights
    groups = use.workgroups()
    lanes = kernel.attributes["LANES"] * kernel.attributes["SLICES"]
    total = line["weight_rows"] * line["columns"]
    of_group = total * use.passes() / groups
    rounds = math.ceil(groups / gpu.units) if groups < 4 * gpu.units else groups / gpu.units
    loaded = loads["loop"]["load_bytes"] + (loads["loop"]["scalar_bytes"] if loads is not own else 0)
    at_once = min(groups * lanes, gpu.units * resident(gpu, own))
    if kernel.attributes["kernel"] == "matmul_integer" and not loads["loop"].get("weight_bytes"):
        loaded += loads_weights * BYTES[format]
        on_their_way = RUN_OF_INTEGERS * kernel.attributes["BLOCKS"] * BYTES[format]
    else:
        load = bytes_of(loads) / max(1, loads["loop"].get("weight_loads") or loads["loop"]["loads"])
        on_their_way = max(1, loads.get("loads_in_flight") or 1) * load
    return (
        line["weight_bytes"] / gpu.bandwidth * 1e-3,
        rounds * of_group * loop["alu"] / weights / gpu.lanes / gpu.clock * 1e-3,
        rounds * of_group * loaded / loads_weights / gpu.l1 / gpu.clock * 1e-3,
        line["weight_bytes"] * gpu.latency / (at_once * on_their_way),
    )


def report(compiled, counted, print_table, details):
    """Prints the estimates: of `compiled`, the operations by driver, with `counted`, RADV's facts by module."""
    unknown = set()
    rows = [["GPU", "model", "weights", "T(1) us", "of it memory", *[f"T({m})/T(1)" for m in ROWS[1:]], "bound at 8"]]
    for gpu in GPUS:
        sums, shares, bounds = {}, {}, {}
        for use in compiled[gpu.driver]:
            line = use.line
            if line["op"] != "product" or line["role"] != "round" or line["choice"] != "default":
                continue
            times = seconds(gpu, use, use.kernel().facts, counted[use.kernel().module])
            if times is None:
                unknown.add(use.kernel().label)
                continue
            count = line["count"]
            for name in [line["matrix"], None]:
                key = line["model"], line["format"], name
                sums.setdefault(key, {}).setdefault(line["rows"], 0)
                sums[key][line["rows"]] += count * max(times)
                if line["rows"] == 1:
                    shares[key] = shares.get(key, 0) + count * times[0]
                if line["rows"] == 8:
                    busiest = RESOURCES[times.index(max(times))]
                    part = bounds.setdefault(key, {})
                    part[busiest] = part.get(busiest, 0) + count * max(times)
        for key, of_rows in sums.items():
            model, format, matrix = key
            if 1 not in of_rows or (matrix and not details):
                continue
            one = of_rows[1]
            ratios = [f"{of_rows[m] / one:.2f}" if m in of_rows else "-" for m in ROWS[1:]]
            bound = max(bounds[key], key=bounds[key].get) if key in bounds else "-"
            name = f"{model} {matrix}" if matrix else model
            rows.append([gpu.name, name, format, f"{one:.0f}", f"{shares[key] / one:.0%}", *ratios, bound])
    print("Estimates: lower bounds by the model of benches/compilers/estimate.py, nothing measured")
    print_table(rows)
    if unknown:
        print(f"not in the model: {', '.join(sorted(unknown))}")
