"""The documents as a site, with mdBook 0.5: the pages that SUMMARY.md lists, and those of each card.

    site.py check        check that every document here is listed, and that all links lead to files and headings
    site.py build DIR    do so, and write the site to DIR

Pages are laid out as in the repository, so that one link serves there and in the site.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

DOCS = pathlib.Path(__file__).resolve().parent
ROOT = DOCS.parent
SUMMARY = DOCS / "SUMMARY.md"
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
# Text that is shown as it was written: blocks, and `code`.
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def links(text):
    """Links of a document to files: their text and their target."""
    found = LINK.finditer(CODE.sub(lambda code: " " * len(code[0]), text))
    return [link for link in found if not re.match(r"[a-z]+:", link[2])]


def headings(path):
    """The names that headings of a document have in links."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def target(page, link):
    """The file that a link of `page` leads to, and the heading in it."""
    path, _, heading = link[2].partition("#")
    return (page.parent / path).resolve() if path else page, heading


def summary():
    """The list of pages as mdBook reads it, relative to the repository, with each card below the table of cards."""
    lines = []
    for line in SUMMARY.read_text(encoding="utf-8").splitlines():
        for link in links(line):
            path = target(SUMMARY, link)[0].relative_to(ROOT).as_posix()
            line = line.replace(f"({link[2]})", f"({path})")
        lines.append(line)
        if line.endswith("(docs/cards/README.md)"):
            rows = sorted((DOCS / "cards").glob("*/row.md"))
            lines += [f"    - [{row.parent.name}]({row.relative_to(ROOT).as_posix()})" for row in rows]
    return "\n".join(lines) + "\n"


def check():
    """The pages, the other files that they lead to, and the faults."""
    pages = {(ROOT / link[2]).resolve() for link in links(summary())}
    faults = [f"{SUMMARY.name} lists {page}, which is not there" for page in pages if not page.is_file()]
    here = set(DOCS.rglob("*.md")) - {SUMMARY}
    faults += [f"{page} is not listed in {SUMMARY.name}" for page in here - pages]
    files = set()
    for page in sorted(page for page in pages if page.is_file()):
        for link in links(page.read_text(encoding="utf-8")):
            path, heading = target(page, link)
            if not path.exists():
                faults.append(f"{page}: {link[2]} leads nowhere")
            elif heading and heading not in headings(path):
                faults.append(f"{page}: {link[2]} names no heading")
            elif path.suffix == ".md" and path not in pages:
                faults.append(f"{page}: {link[2]} is not a page of the site")
            elif path.is_file():
                files.add(path)
    return pages, files - pages, faults


def lay_out(source, pages, files):
    """Copies pages and files as they lie in the repository, with links as the site needs them: a README is its folder's
    index there, and a folder is no page, so that a link to one becomes its text."""
    for path in pages | files:
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for link in reversed(links(text)):
            path, _ = target(page, link)
            if path.is_dir():
                text = text[: link.start()] + link[1] + text[link.end() :]
            elif path.name == "README.md":
                index = link[2].replace("README.md", "index.md")
                text = text[: link.start(2)] + index + text[link.end(2) :]
        (source / page.relative_to(ROOT)).write_text(text, encoding="utf-8")
    (source / SUMMARY.name).write_text(summary(), encoding="utf-8")


def main(arguments):
    if arguments != ["check"] and (len(arguments) != 2 or arguments[0] != "build"):
        sys.exit(__doc__.strip())
    pages, files, faults = check()
    if faults:
        sys.exit("\n".join(sorted(faults)))
    if arguments[0] == "build":
        with tempfile.TemporaryDirectory() as work:
            lay_out(pathlib.Path(work) / "src", pages, files)
            shutil.copyfile(DOCS / "book.toml", pathlib.Path(work) / "book.toml")
            subprocess.run(["mdbook", "build", "--dest-dir", pathlib.Path(arguments[1]).resolve(), work], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
