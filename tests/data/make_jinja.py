"""Renders the templates of jinja.json anew, each of which stands there with its text, as transformers does with Jinja2.

    python3 make_jinja.py

Needs the packages `transformers` (5.24 was used) and `jinja2` (3.1.6).
"""

import json
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template

FILE = Path(__file__).parent / "jinja.json"
MESSAGES = [
    {"role": "user", "content": " Hi \n"},
    {"role": "assistant", "content": "Yes<b>&'\"é🦀\n\tx"},
]


def rendered(source):
    variables = {"messages": MESSAGES, "tools": None, "documents": None, "add_generation_prompt": True}
    return _compile_jinja_template(source).render(bos_token="<s>", eos_token="</s>", **variables)


pairs = [[source, rendered(source)] for source, _ in json.loads(FILE.read_text(encoding="utf-8"))]
lines = ",\n".join(json.dumps(pair, ensure_ascii=False) for pair in pairs)
FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
