"""``fastreg eval``: measure a model."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fastreg.cli import app, described
from fastreg.cli.eval_options import FLAGS
from fastreg.cli.options import flag_names, with_flags
from fastreg.cli.shared import normalization
from fastreg.log import write_line


@app.command("eval")
@partial(with_flags, table=FLAGS)
def evaluate(
    context: typer.Context,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Run folders or checkpoints; default: the newest run's best."),
    ] = None,
    suites: Annotated[
        str, typer.Option("--suite", help="clean, fgsm, pgd, occlusion, imagenet-c, cifar-c, calibration, ... paper.")
    ] = "clean",
    **flags: Any,
) -> None:
    """Evaluate a model and write its scorecard; a repeated command continues a killed evaluation."""
    from fastreg.errors import InputError
    from fastreg.pipelines import DATASETS

    for word in checkpoints or ():
        if str(word) in DATASETS and not word.exists():
            raise InputError(
                f"{word} is a data set, and the first word is a run folder or checkpoint: give --data {word}, or "
                "neither for the newest run on its own data."
            )
    given = {name: value for name, value in flags.items() if value is not None}
    for name in given.keys() & {"mean", "std"}:
        given[name] = normalization(given[name])
    several = checkpoints if checkpoints and len(checkpoints) > 1 else []
    if several and "out" in given:
        raise InputError(f"`out` {given['out']} is for the scorecard of one model, and {len(several)} runs are given.")
    if not several:
        folder = _evaluate(checkpoints[0] if checkpoints else None, suites, given)
        typer.echo(f"scorecard: {folder / 'scorecard.json'}; next: fastreg report {shlex.quote(str(folder))}")
        return
    done, codes = [], []
    for checkpoint in several:
        try:
            done.append(_evaluate(checkpoint, suites, given))
        except Exception as error:  # the other runs are evaluated all the same
            if "--debug" in sys.argv:
                raise
            message, code = described(error, context.find_root().command, sys.argv[1:])
            write_line(sys.stderr, f"fastreg: {checkpoint}: {message}")
            codes.append(code)
    if done:
        typer.echo(f"{len(done)} of {len(several)} runs evaluated; next: fastreg report {shlex.join(map(str, done))}")
    if codes:
        raise typer.Exit(max(codes))


def _evaluate(checkpoint: Path | None, suites: str, given: dict[str, Any]) -> Path:
    """Evaluate one model and print its scorecard. Returns the folder of scorecard.json."""
    from fastreg.evaluation.from_checkpoint import run
    from fastreg.report import print_scorecard

    card, folder = run(checkpoint, suites, **given)
    print_scorecard(card, suites, flag_names(FLAGS))
    return folder
