"""``fastreg eval``: measure a model."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fastreg.cli import app
from fastreg.cli.eval_options import FLAGS
from fastreg.cli.options import flag_names, with_flags
from fastreg.cli.shared import normalization


@app.command("eval")
@partial(with_flags, table=FLAGS)
def evaluate(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A run folder or checkpoint; default: the newest run's best.")
    ] = None,
    suites: Annotated[
        str, typer.Option("--suite", help="clean, fgsm, pgd, occlusion, imagenet-c, cifar-c, calibration, ... paper.")
    ] = "clean",
    **flags: Any,
) -> None:
    """Evaluate a model and write its scorecard; a repeated command continues a killed evaluation."""
    from fastreg.evaluation.from_checkpoint import run
    from fastreg.report import print_scorecard

    given = {name: value for name, value in flags.items() if value is not None}
    for name in given.keys() & {"mean", "std"}:
        given[name] = normalization(given[name])
    card, folder = run(checkpoint, suites, **given)
    print_scorecard(card, suites, flag_names(FLAGS))
    typer.echo(f"scorecard: {folder / 'scorecard.json'}; next: fastreg report {shlex.quote(str(folder))}")
