"""``fastreg bench``: speed beside peers and the limit of a copy."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fastreg.benchmarks.suites import benchmarks, select
from fastreg.cli import app

What = Annotated[str, typer.Argument(help=f"{', '.join(benchmarks())}, several joined by commas, or all.")]


@app.command(
    no_args_is_help=True,
    epilog=" ".join(f"{name}: {row.help}." for name, row in benchmarks().items()),
)
def bench(
    what: What,
    out: Annotated[str | None, typer.Option("--out", help="Folder for the JSON of this machine.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer cases, a quarter of the time.")] = False,
    data_dir: Annotated[str | None, typer.Option("--data-dir", help="Folder of the imagenet data set.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Default: resnet50; on a CPU resnet18.")] = None,
    size: Annotated[
        int | None, typer.Option("--size", "--img-size", help="Pixels. Default: by suite and device.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("-b", "--batch-size", help="Default: by suite and device; throughput 256, CPU 32.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")] = None,
) -> None:
    """Measure this machine: images per second, beside installed peers and a copy of the same bytes."""
    from fastreg.benchmarks import run
    from fastreg.benchmarks.report.terminal import suite_text

    flags: dict[str, Any] = {
        "model": model,
        "size": size,
        "batch_size": batch_size,
        "device": device,
        "data_dir": data_dir,
    }
    for name in select(what):
        typer.echo(suite_text(name, run(name, out=out, quick=quick, **flags)))
