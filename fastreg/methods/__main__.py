"""``python -m fastreg.methods``: writes the methods into the READMEs of a checkout, from the heads of their modules."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastreg.methods import JOINED, METHODS

FOLDER = Path(__file__).parent
MARKERS = "<!-- {0} -->", "<!-- /{0} -->"


def method_table() -> str:
    """A Markdown table with a row per module: names, first line, defaults and source of the head."""
    names: dict[str, list[str]] = {}
    for name, build in {**METHODS, **JOINED}.items():
        names.setdefault(build.__module__, []).append(name)
    lines = ["| method | effect | defaults | source |", "|---|---|---|---|"]
    for module, own in names.items():
        head = read_head(sys.modules[module])
        cells = [" ".join(f"`{name}`" for name in own), head["first"], head.get("Defaults", ""), head["Source"]]
        lines.append("| " + " | ".join(cell.replace("``", "`").replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)


def read_head(module: Any) -> dict[str, str]:
    """The parts of a module's head in one line each: "first", "Source", "Defaults", "Cost" and "Example"."""
    text = inspect.cleandoc(module.__doc__)
    parts = re.split(r"^(Source|Defaults|Cost|Example): ", text, flags=re.MULTILINE)
    found = {"first": text.split("\n\n")[0], **dict(zip(parts[1::2], parts[2::2]))}
    return {part: " ".join(value.split()) for part, value in found.items()}


def method_names() -> str:
    return " ".join(f"`{name}`" for name in {**METHODS, **JOINED})


BLOCKS: dict[Path, tuple[str, Callable[[], str]]] = {
    FOLDER / "README.md": ("table of methods", lambda: f"\n\n{method_table()}\n\n"),
    FOLDER.parents[1] / "README.md": ("names of methods", method_names),
}


def rewritten() -> dict[Path, str]:
    """The text of each README with its block, which stands between two markers, made anew."""
    found = {}
    for path, (name, block) in BLOCKS.items():
        before, after = (marker.format(name) for marker in MARKERS)
        start, _, rest = path.read_text().partition(before)
        _, _, end = rest.partition(after)
        found[path] = f"{start}{before}{block()}{after}{end}"
    return found


if __name__ == "__main__":
    for path, text in rewritten().items():
        path.write_text(text)
