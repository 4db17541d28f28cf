"""A table of the paper as commands: train and evaluate each of its rows, resumable row by row."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from fastreg import recipes
from fastreg.errors import RunError
from fastreg.report import published
from fastreg.report.papertables import DATASET


def commands(table: str, output: str = "runs", flags: Sequence[str] = ()) -> list[list[str]]:
    """The words after ``fastreg`` for every row of ``table1`` to ``table4``: a training, then its evaluation.

    ``flags`` go to every training. Each command continues where it was stopped. Raises InputError for another table.
    """
    published.rows(table)  # a wrong name is said before anything else
    words = []
    for name, recipe in recipes.PAPER.items():
        dataset = name.split("/")[1]
        if dataset != DATASET[table] or published.match(recipe, table) is None:
            continue
        run = name.removeprefix("paper/").replace("/", "-")
        words.append(
            ["train", dataset, "--recipe", name, "--output", output, "--name", run, "--resume", "auto", *flags]
        )
        words.append(["eval", f"{output}/{run}", "--suite", "paper"])
    return words


def run(table: str, output: str = "runs", flags: Sequence[str] = ()) -> None:
    """Run :func:`commands` in turn. Raises RunError at the first that fails; a second call goes on from there."""
    for words in commands(table, output, flags):
        print("$ fastreg " + " ".join(words), flush=True)
        if subprocess.run([sys.executable, "-m", "fastreg", *words]).returncode:
            raise RunError(
                f"`fastreg {' '.join(words)}` failed: mend it and run this command again to go on from there."
            )
