"""A table of the paper as commands: train and evaluate each of its rows, resumable row by row."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise

from fastreg import recipes
from fastreg.errors import InputError, RunError
from fastreg.report import paper_rows as published
from fastreg.report.paper_tables import DATASET


def commands(table: str, output: str = "runs", flags: Sequence[str] = ()) -> list[list[str]]:
    """The words after ``fastreg`` for every row of ``table1`` to ``table4``: a training, then its evaluation.

    The row of ``ood_gan`` trains its generator first. ``flags`` go to every training (to the GAN's only where data lie
    and on what to train). Each command continues where it was stopped. Raises InputError for another table.
    """
    if table == "figure1":
        raise InputError("figure1 is drawn from the runs of the tables: train those of table1 or table4.")
    published.rows(table)  # a wrong name is said before anything else
    words = []
    for name, recipe in recipes.PAPER.items():
        dataset = name.split("/")[1]
        if dataset != DATASET[table] or published.match(recipe, table) is None:
            continue
        run = name.removeprefix("paper/").replace("/", "-")
        own = []
        if recipe["reg"] == "ood_gan":
            shared = [w for pair in pairwise(flags) if pair[0] in ("--data-dir", "--device") for w in pair]
            words.append(["train", "gan", "--output", output, "--resume", "auto", *shared])
            own = ["--reg-args", json.dumps({"ood": f"{output}/gan"})]
        words.append(
            ["train", dataset, "--recipe", name, "--output", output, "--name", run, "--resume", "auto", *own, *flags]
        )
        words.append(["eval", f"{output}/{run}", "--suite", "paper"])
    return words


def run(table: str, output: str = "runs", flags: Sequence[str] = ()) -> None:
    """Run :func:`commands` in turn. Raises RunError at the first that fails; a second call goes on from there."""
    for words in commands(table, output, flags):
        line = shlex.join(["fastreg", *words])
        print(f"$ {line}", flush=True)
        if subprocess.run([sys.executable, "-m", "fastreg", *words]).returncode:
            raise RunError(f"`{line}` failed: mend it and run this command again to go on from there.")
