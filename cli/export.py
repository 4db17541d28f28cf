"""``fastreg export``: a trained model as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastreg.cli import app
from fastreg.cli.shared import RunsRoot


@app.command()
def export(
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run folder or checkpoint; default: the newest run.")
    ] = None,
    to: Annotated[str, typer.Option("--to", help="safetensors, onnx or pt2 (torch.export).")] = "safetensors",
    out: Annotated[Path | None, typer.Option("--out", help="The file; default: in the run's folder.")] = None,
    weights: Annotated[
        str, typer.Option("--weights", help="best, last, or ema: the average of the last epoch's weights.")
    ] = "best",
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Normalize inside the network, which then takes pixels in [0, 1].")
    ] = False,
    size: Annotated[int | None, typer.Option("--size", help="Side of the images; default: the run's.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="package.module:function, for a run of it.")] = None,
    runs_root: RunsRoot = Path("runs"),
) -> None:
    """Write a trained model as safetensors, ONNX or a torch.export program, and compare its logits."""
    from fastreg.training.export import export as write

    typer.echo(write(run, to, out, weights=weights, normalize=normalize, size=size, model=model, runs_root=runs_root))
