"""A table of the paper as commands that train and evaluate its rows. Each command continues where it stopped."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise

from fastreg import recipes
from fastreg.errors import InputError, RunError
from fastreg.log import log
from fastreg.report import paper_rows


def commands(table: str, output: str = "runs", flags: Sequence[str] = ()) -> list[list[str]]:
    """The commands of a table: one training and one evaluation per row. `ood_gan` trains its generator first.

    Args:
        table: "table1" to "table4".
        output: parent folder of the runs.
        flags: further words of every training command. The generator gets those for the data and the device only.

    Returns:
        For each command the words after ``fastreg``.

    Raises:
        InputError: another table.
    """
    if table == "figure1":
        raise InputError("figure1 is drawn from the runs of the tables: train those of table1 or table4.")
    paper_rows.rows(table)  # raises for an unknown table
    words = []
    for name, recipe in recipes.PAPER.items():
        dataset = name.split("/")[1]
        if dataset != paper_rows.DATASET[table] or paper_rows.match(recipe, table) is None:
            continue
        run_name = name.removeprefix("paper/").replace("/", "-")
        own = []
        if recipe["reg"] == "ood_gan":
            shared = [w for pair in pairwise(flags) if pair[0] in ("--data-dir", "--device") for w in pair]
            words.append(["train", "gan", "--output", output, "--resume", "auto", *shared])
            own = ["--reg-args", json.dumps({"ood": f"{output}/gan"})]
        train = ["train", dataset, "--recipe", name, "--output", output, "--name", run_name, "--resume", "auto"]
        words.append([*train, *own, *flags])
        words.append(["eval", f"{output}/{run_name}", "--suite", "paper"])
    return words


def run(table: str, output: str = "runs", flags: Sequence[str] = ()) -> None:
    """Run the commands of a table in turn; the arguments are those of :func:`commands`.

    Raises:
        InputError: another table.
        RunError: a command failed. A second call continues there.
    """
    for words in commands(table, output, flags):
        line = shlex.join(["fastreg", *words])
        log.info("$ %s", line)
        if subprocess.run([sys.executable, "-m", "fastreg", *words]).returncode:
            raise RunError(f"`{line}` failed: fix the cause and run this command again, which continues there.")
