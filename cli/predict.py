"""``fastreg predict``: the most probable classes of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fastreg.cli import app
from fastreg.cli.options import Command
from fastreg.log import printable

Images = Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Image files, and folders of images.")]


@app.command(cls=Command)
def predict(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, a checkpoint, timm:NAME, torchvision:NAME.")],
    images: Images,
    topk: Annotated[int, typer.Option("--topk", help="Classes per image.")] = 5,
    csv: Annotated[
        str | None, typer.Option("--csv", help="Write CSV to this file; without a value, to the terminal.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="package.module:function, for a run of it.")] = None,
    size: Annotated[int | None, typer.Option("--size", "--img-size", help="Pixels; default: the run's.")] = None,
    crop_pct: Annotated[float | None, typer.Option("--crop-pct", help="Size over the resized side.")] = None,
    interpolation: Annotated[
        str | None, typer.Option("--interpolation", help="bilinear, bicubic, lanczos, nearest.")
    ] = None,
    mean: Annotated[str | None, typer.Option("--mean", help="Normalization, as for fastreg eval.")] = None,
    std: Annotated[str | None, typer.Option("--std", help="The same.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    batch_size: Annotated[int, typer.Option("-b", "--batch-size", help="Images per forward pass.")] = 64,
    workers: Annotated[int | None, typer.Option("-j", "--workers", help="Decoding threads.")] = None,
) -> None:
    """Print the most probable classes of images. Images that cannot be read are named; then the exit code is 1."""
    from fastreg.cli.shared import normalization
    from fastreg.errors import InputError
    from fastreg.evaluation.predict import predict as run_model
    from fastreg.evaluation.predict import write_csv

    if csv not in (None, "-") and (Path(str(csv)).suffix != ".csv" or Path(str(csv)) in images):
        raise InputError(f"`csv` is {csv}: give the name of a .csv file.")
    options: dict[str, Any] = {"size": size, "crop_pct": crop_pct, "interpolation": interpolation}
    options |= {key: normalization(text) for key, text in (("mean", mean), ("std", std)) if text is not None}
    predictions = run_model(
        run, images, topk=topk, model=model, device=device, batch_size=batch_size, workers=workers, **options
    )
    done = []
    for one in predictions:
        done.append(one)
        if one.error:
            typer.echo(printable(f"fastreg: cannot read {one.image}: {one.error}."), err=True)
        elif csv is None:
            ranked = zip(one.classes, one.probabilities)
            names = ", ".join(f"{name} {100 * p:.1f} %" for name, p in ranked)
            typer.echo(printable(f"{one.image}: {names}"))
    if csv is not None:
        text = write_csv(done, None if csv == "-" else csv)
        typer.echo(text.rstrip("\n") if csv == "-" else f"{csv}: {sum(not one.error for one in done)} images")
    if any(one.error for one in done):
        raise typer.Exit(1)
