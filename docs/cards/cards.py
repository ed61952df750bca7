"""The table of cards, made of what `./run gpu` measured on each.

    cards.py check             check every folder here, and that README.md is their table
    cards.py table             write README.md
    cards.py add FOLDER NAME   check what `./run gpu` wrote to FOLDER, put it here as NAME, and write README.md
"""

import json
import math
import pathlib
import re
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
FILES = ["report.json", "row.md"]
# Reports of a full run are a tenth of this.
MOST_BYTES = 1 << 20
# Bytes a second; no card reads a hundredth of it, so that a larger rate is a fault of the clock.
MOST_READ = 1e15

HEAD = """# Cards

Measured by `./run gpu`, one row a card and driver ([Profiling](../profiling.md#measuring-a-gpu)). A card's name leads to all its
figures. Read and multiply rates are the device's own; T(8) / T(1) is what a pass of 8 rows costs beside one row, in a pass of
the shape named; tokens/s are of SmolLM2-135M-Instruct with the draft of models/, PARD at its best K. llvmpipe is Mesa's software
driver, here on two CPU cores that had other work.

To add a card, run these in a copy of the repository and open a pull request with what they write:

```sh
./run gpu 600 pard-report
python3 docs/cards/cards.py add pard-report NAME
```

`NAME` says which card, system and driver, such as `rx-7900-xt-linux-radv`.

"""
COLUMNS = [
    ("card", "---"),
    ("driver", "---"),
    ("date", "---"),
    ("pard", "---"),
    ("self-check", "---"),
    ("GB/s read", "--:"),
    ("GFLOP/s", "--:"),
    ("pass", "---"),
    ("T(1) ms", "--:"),
    ("T(8) / T(1)", "--:"),
    ("AR tokens/s", "--:"),
    ("PARD tokens/s (K)", "--:"),
]


class Refused(Exception):
    """A folder that cannot be a row, and why."""


def read(folder):
    """The report in `folder`, if it is whole and makes sense."""
    found = sorted(path.name for path in folder.iterdir())
    if found != FILES:
        raise Refused(f"{folder}: holds {', '.join(found) or 'nothing'}; a card's are {' and '.join(FILES)}")
    for name in FILES:
        if (folder / name).stat().st_size > MOST_BYTES:
            raise Refused(f"{folder / name}: is larger than {MOST_BYTES} bytes")
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        check(report)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Refused(f"{folder / 'report.json'}: is no report of `pard report`: {error!r}") from error
    except Refused as error:
        raise Refused(f"{folder / 'report.json'}: {error}") from error
    title = (folder / "row.md").read_text(encoding="utf-8").split("\n", 1)[0]
    if title != f"### {report['device']}, {report['begun']}":
        raise Refused(f"{folder / 'row.md'}: belongs to another report than report.json")
    return report


def check(report):
    if report["pard_report"] != 1:
        raise Refused(f"has version {report['pard_report']}; this script knows 1")
    if report["complete"] is not True:
        raise Refused("is of a run that was cut short")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", report["begun"]):
        raise Refused(f"begun {report['begun']!r} is no date")
    rates = report["rates"]
    for name, most in [("read_bytes_per_second", MOST_READ), ("multiply_flops_per_second", math.inf)]:
        if not 0 < rates[name] < most:
            raise Refused(f"{name} {rates[name]} cannot be")
    if not report["checks"]:
        raise Refused("lacks the self-check")
    if not report["passes"]:
        raise Refused("lacks passes; give it more time")
    for one in report["passes"]:
        for time in one["times"]:
            if not 0 < time["least"] <= time["seconds"] <= time["most"]:
                raise Refused(f"a pass of {time['rows']} rows took {time['seconds']} s, which cannot be")
    row("", report)


def row(name, report):
    """The cells of one card."""
    faults = sum(len(check["faults"]) for check in report["checks"])
    one = report["passes"][0]
    times = {time["rows"]: time["seconds"] for time in one["times"]}
    alike = "" if not one["differing"] else ", rows differ"
    rounds = report.get("rounds", [])
    ar = [entry["tokens_per_second"] for entry in rounds if entry["method"] == "ar"]
    pard = [(entry["tokens_per_second"], entry["drafts"]) for entry in rounds if entry["method"] == "pard"]
    best = max(pard, default=None)
    adapter = report["adapter"]
    return [
        f"[{plain(adapter['name'])}, {plain(adapter['backend'])}]({name}/row.md)",
        plain(adapter["driver"]),
        report["begun"],
        plain(report["engine"]),
        (f"{faults} faults" if faults else "passed") + alike,
        f"{report['rates']['read_bytes_per_second'] / 1e9:.1f}",
        f"{report['rates']['multiply_flops_per_second'] / 1e9:.0f}",
        f"{plain(one['shape'])} {plain(one['format'])}, {one['layers']} layers",
        f"{times[1] * 1e3:.2f}",
        f"{times[8] / times[1]:.2f}" if 8 in times else "-",
        f"{ar[0]:.1f}" if ar else "-",
        f"{best[0]:.1f} ({best[1]})" if best else "-",
    ]


def plain(text):
    """A driver's word in a table, where it can neither end a cell nor be a link."""
    return re.sub(r"[|<>\[\]`\\\r\n]", " ", text)


def cards():
    """Reports by the names of their folders, fastest memory first."""
    folders = sorted(path for path in HERE.iterdir() if path.is_dir() and path.name != "__pycache__")
    reports = [(folder.name, read(folder)) for folder in folders]
    return sorted(reports, key=lambda card: -card[1]["rates"]["read_bytes_per_second"])


def table():
    lines = [[name for name, _ in COLUMNS], [align for _, align in COLUMNS]]
    lines += [row(name, report) for name, report in cards()]
    return HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def add(source, name):
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise Refused(f"{name}: a card's name has small letters, digits, points and hyphens")
    target = HERE / name
    if target.exists():
        raise Refused(f"{name}: there is such a card already; another driver or date takes another name")
    target.mkdir()
    try:
        for file in FILES:
            shutil.copyfile(source / file, target / file)
        read(target)
    except (OSError, Refused):
        shutil.rmtree(target)
        raise


def main(arguments):
    readme = HERE / "README.md"
    if arguments[:1] == ["add"] and len(arguments) == 3:
        add(pathlib.Path(arguments[1]), arguments[2])
    elif arguments == ["check"]:
        if readme.read_text(encoding="utf-8") != table():
            raise Refused(f"{readme}: is not the table of the folders beside it; run: python3 {__file__} table")
        return
    elif arguments != ["table"]:
        sys.exit(__doc__.strip())
    readme.write_bytes(table().encode())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, Refused) as error:
        sys.exit(f"cards: {error}")
