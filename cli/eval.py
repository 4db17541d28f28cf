"""``fastreg eval``: measure a model."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fastreg.cli import app
from fastreg.cli.eval_options import FLAGS
from fastreg.cli.options import with_flags


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
    from fastreg.errors import InputError
    from fastreg.evaluation.from_checkpoint import run
    from fastreg.pipelines import DATASETS
    from fastreg.report import print_scorecard

    if str(checkpoint) in DATASETS and not Path(str(checkpoint)).exists():
        raise InputError(
            f"{checkpoint} is a data set, and the first word is a run folder or checkpoint: give --data {checkpoint}, "
            "or neither for the newest run on its own data."
        )
    given = {name: value for name, value in flags.items() if value is not None}
    for name in given.keys() & {"mean", "std"}:
        given[name] = _numbers(given[name])
    card, folder = run(checkpoint, suites, **given)
    print_scorecard(card, suites)
    typer.echo(f"scorecard: {folder / 'scorecard.json'}; next: fastreg report {shlex.quote(str(folder))}")


def _numbers(text: str) -> Any:
    """``0.5,0.5,0.5`` as numbers and ``none`` as None; other words stay, and are refused where they are checked."""
    try:
        return None if text == "none" else [float(word) for word in text.split(",")]
    except ValueError:
        return text
