"""Options and parsing that several commands share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from fastreg.errors import InputError

RunsRoot = Annotated[Path, typer.Option("--runs", help="Folder of the run folders.")]
Corruptions = Annotated[str, typer.Option("--corruption", "--corruptions", help="all, or names joined by commas.")]
Severities = Annotated[str, typer.Option("--severity", "--severities", help="all, or numbers joined by commas.")]
CropPct = Annotated[
    float, typer.Option("--crop-pct", help="Size divided by the resized side; 1 leaves images of that size whole.")
]
ShardOption = Annotated[
    str | None, typer.Option("--shard", help="I/N: this is the I-th of N processes that share the work, from 1.")
]


def parse_object(flag: str, text: str | None) -> dict[str, Any] | None:
    """Parse a JSON object given on the command line; None stays None."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{flag} is not JSON ({error.msg}): write it as in '{{\"alpha\": 0.2}}'.") from None
    if not isinstance(value, dict):
        raise InputError(f"{flag} is {text}: give a JSON object, such as '{{\"alpha\": 0.2}}'.")
    return value


def world_and_gpu(device: str | None) -> tuple[int, bool]:
    """``(number of processes, whether the run uses a GPU)``."""
    from fastreg.distributed import resolve_device

    return int(os.environ.get("WORLD_SIZE", "1")), resolve_device(device or "auto").type == "cuda"


def normalization(text: str) -> Any:
    """``0.5,0.5,0.5`` as numbers and ``none`` as None; other words stay, and are refused where they are checked."""
    try:
        return None if text == "none" else [float(word) for word in text.split(",")]
    except ValueError:
        return text
