"""Class maps: the output of the model for each class name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastreg.errors import InputError
from fastreg.pipelines.source import MAX_CLASSES, Source

ORDERS = ("torchvision", "timm")


def apply_class_map(source: Source, class_map: str | Path) -> None:
    """Number the classes of a source by a class map.

    Args:
        source: Its labels and class names are replaced.
        class_map: ``"torchvision"`` (sorted names: 10 before 2), ``"timm"`` (numbers in names by value: 2 first), or
            a file: JSON (an object of name to output, or a list of names), or text with a line for each class: its
            name, whose output is the line's number from 0, or name and output. Several names may have one output.

    Raises:
        InputError: The file cannot be read as a class map, or lacks a class of the source.
    """
    if class_map in ORDERS:
        ordered = sorted(source.classes, key=natural_key if class_map == "timm" else None)
        outputs = {name: k for k, name in enumerate(ordered)}
    else:
        outputs = read_class_map(Path(class_map))
    absent = [name for k, name in enumerate(source.classes) if name not in outputs and (source.labels == k).any()]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise InputError(f"`class_map` {class_map} lacks class {absent[0]!r}{more} of {source.root}: add it.")
    source.renumber(output_names(outputs), {**dict.fromkeys(source.classes, 0), **outputs})


def natural_key(name: str) -> list[str | int]:
    """timm's order of class names: digits compare by value."""
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", name.lower())]


def output_names(outputs: Mapping[str, int]) -> Sequence[str]:
    """The name of each output: the class names that have it, joined by a bar; its number if there is none."""
    names: list[list[str]] = [[] for _ in range(max(outputs.values()) + 1)]
    for name, output in outputs.items():
        names[output].append(name)
    return ["|".join(row) or str(k) for k, row in enumerate(names)]


def read_class_map(path: Path) -> dict[str, int]:
    """The output of each class name in a file. Raises InputError if it cannot be read as a class map."""
    try:
        text = path.read_text("utf-8")
        outputs = _of_json(text) if path.suffix == ".json" else _of_lines(text)
        if not outputs:
            raise ValueError("it is empty")
        wrong = next((f"{name} {k}" for name, k in outputs.items() if not 0 <= k < MAX_CLASSES), None)
        if wrong:
            raise ValueError(f"it has {wrong}, and outputs are 0 to {MAX_CLASSES - 1:,}")
    except OSError as error:
        raise InputError(f"`class_map` {path}: {error.strerror}; give a file, or {' or '.join(ORDERS)}.") from None
    except (ValueError, RecursionError) as error:
        why = str(error).split("\n")[0][:200].rstrip(".")
        raise InputError(f"`class_map` {path} is not a class map ({why}): correct it.") from None
    return outputs


def _of_json(text: str) -> dict[str, int]:
    content = json.loads(text)
    if isinstance(content, list):
        plain = all(isinstance(name, str) for name in content) and len(set(content)) == len(content)
        content = {name: k for k, name in enumerate(content)} if plain else None
    if not isinstance(content, dict) or not all(type(output) is int for output in content.values()):
        raise ValueError("JSON must be an object of name to whole number, or a list of different names")
    return content


def _of_lines(text: str) -> dict[str, int]:
    rows = [line.strip() for line in text.splitlines() if line.strip()]
    pairs = [re.fullmatch(r"(.*\S)[\s,]+(-?\d+)", row) for row in rows]
    if rows and all(pairs):
        found = [(pair[1].rstrip(","), int(pair[2])) for pair in pairs if pair]
    else:
        found = [(row, k) for k, row in enumerate(rows)]
    outputs = dict(found)
    if len(outputs) < len(found):
        raise ValueError("it has a class twice")
    return outputs
