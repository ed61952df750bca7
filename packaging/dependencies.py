"""The packages that a release is linked with: their licences as text, or a bill of materials (CycloneDX 1.5, JSON).

    dependencies.py licences|bill TARGET
"""

import json
import pathlib
import subprocess
import sys
from datetime import datetime, timezone

ROOTS = ["pard-cli", "pard-c"]
# Files that hold a licence or say whose work it is.
NOTICES = ("license", "licence", "copying", "copyright", "notice", "unlicense")


def packages(target):
    """Those that the program and the C library are linked with, by name; without what only builds or tests them."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    data = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    by_id = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    waiting = [id for id, package in by_id.items() if package["name"] in ROOTS]
    linked = {}
    while waiting:
        id = waiting.pop()
        if id in linked:
            continue
        normal = [
            dependency["pkg"]
            for dependency in nodes[id]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
        linked[id] = normal
        waiting += normal
    own = {id for id in linked if by_id[id]["source"] is None}
    return by_id, linked, own


def licences(target):
    by_id, linked, own = packages(target)
    texts = {}  # one licence's text is many packages' own
    for package in sorted((by_id[id] for id in linked if id not in own), key=lambda package: package["name"]):
        folder = pathlib.Path(package["manifest_path"]).parent
        name = f"{package['name']} {package['version']}"
        print(f"{name}: {package['license'] or package['license_file']}")
        for file in sorted(folder.iterdir()):
            if file.is_file() and file.name.lower().startswith(NOTICES):
                text = file.read_text(encoding="utf-8", errors="replace").strip()
                texts.setdefault(text, []).append(f"{name} ({file.name})")
    for text, names in texts.items():
        print(f"\n{'-' * 80}\n{', '.join(names)}:\n\n{text}")


def bill(target):
    by_id, linked, own = packages(target)
    reference = lambda id: f"pkg:cargo/{by_id[id]['name']}@{by_id[id]['version']}"
    [program] = [id for id in own if by_id[id]["name"] == ROOTS[0]]

    def component(id):
        package = by_id[id]
        entry = {"type": "library", "bom-ref": reference(id), "name": package["name"], "version": package["version"]}
        if id not in own:
            entry["purl"] = reference(id)
        if package["license"]:
            entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        return entry

    print(
        json.dumps(
            {
                "bomFormat": "CycloneDX",
                "specVersion": "1.5",
                "version": 1,
                "metadata": {
                    "timestamp": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "component": {**component(program), "type": "application"},
                    "properties": [{"name": "target", "value": target}],
                },
                "components": [component(id) for id in sorted(linked, key=reference) if id != program],
                "dependencies": [
                    {"ref": reference(id), "dependsOn": sorted(map(reference, linked[id]))}
                    for id in sorted(linked, key=reference)
                ],
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ["licences", "bill"]:
        sys.exit(__doc__)
    sys.stdout.reconfigure(encoding="utf-8")
    {"licences": licences, "bill": bill}[sys.argv[1]](sys.argv[2])
