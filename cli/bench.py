"""``fastreg bench``: speed beside peers and the physical limit."""

from __future__ import annotations

from typing import Annotated

import typer

from fastreg.cli import app

What = Annotated[str, typer.Argument(help="kernels, loss, throughput, corruptions, loaders, eval or all.")]


@app.command(no_args_is_help=True)
def bench(
    what: What,
    out: Annotated[str | None, typer.Option("--out", help="Folder for the JSON of this machine.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer cases, a quarter of the time.")] = False,
    data_dir: Annotated[str | None, typer.Option("--data-dir", help="Where the imagenet data set lies.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Default: resnet50; on a CPU resnet18.")] = None,
    size: Annotated[
        int | None, typer.Option("--size", "--img-size", help="Pixels. Default: by suite and device.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", help="Default: by suite and device; throughput 256, CPU 32.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")] = None,
) -> None:
    """Measure this machine: images per second, beside peers that are installed and a copy of the same bytes."""
    from fastreg.benchmarks import run

    flags = {"model": model, "size": size, "batch_size": batch_size, "device": device}
    run(what, out=out, quick=quick, data_dir=data_dir, say=typer.echo, **flags)
