"""``fastreg eval``, and what goes with it: ``report``, ``paper``, ``corrupt``, ``show``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fastreg.cli import app

show = typer.Typer(help="Pictures.", no_args_is_help=True)
app.add_typer(show, name="show")

RunsRoot = Annotated[Path, typer.Option("--runs", help="Folder of run folders.")]
CropPct = Annotated[
    float, typer.Option("--crop-pct", help="Size over the resized side; 1 keeps images of that size whole.")
]


@app.command("eval")
def evaluate(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A run folder or checkpoint; default: the newest run's best.")
    ] = None,
    suite: Annotated[
        str, typer.Option("--suite", help="clean, fgsm, pgd, occlusion, imagenet-c, cifar-c, calibration, ... paper.")
    ] = "clean",
    weights: Annotated[Path | None, typer.Option("--weights", help="A plain state dict instead.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Of --weights; or timm:NAME, torchvision:NAME alone.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="A data set, or folder:DIR.")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where the data set lies.")] = None,
    size: Annotated[int | None, typer.Option("--size", "--img-size", help="Pixels.")] = None,
    crop_pct: CropPct = 224 / 256,
    batch_size: Annotated[int | None, typer.Option("-b", "--batch-size", help="Images per forward pass.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto, bf16, fp16 or fp32.")] = "auto",
    torchcompile: Annotated[bool, typer.Option("--torchcompile", help="Compile the model.")] = False,
    epsilon: Annotated[float, typer.Option("--epsilon", help="Of the attacks, pixels in [0, 1].")] = 8 / 255,
    clip: Annotated[bool, typer.Option("--clip/--no-clip", help="Keep attacked pixels in [0, 1].")] = True,
    fidelity: Annotated[
        str, typer.Option("--fidelity", help="dataset (ImageNet-C's JPEG step) or memory; auto is dataset.")
    ] = "auto",
    constants: Annotated[
        str, typer.Option("--constants", help="imagenet224, imagenet299, tiny64, cifar32; auto goes by size.")
    ] = "auto",
    corruptions: Annotated[
        str | None, typer.Option("--corruptions", "--corruption", help="Only these, joined by commas.")
    ] = None,
    frost_dir: Annotated[Path | None, typer.Option("--frost-dir", help="The frost photographs.")] = None,
    imagenet_c_dir: Annotated[Path | None, typer.Option("--imagenet-c-dir", help="The official images.")] = None,
    cifar_c_dir: Annotated[Path | None, typer.Option("--cifar-c-dir", help="The official arrays.")] = None,
    ood_dir: Annotated[Path | None, typer.Option("--ood-dir", help="The out-of-distribution sets.")] = None,
    odin_split: Annotated[bool, typer.Option("--odin-split", help="Leave out ODIN's tuning images.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Key of every random draw.")] = 0,
    loader: Annotated[
        str, typer.Option("--loader", help="auto is folder, the published (Pillow's) protocol; or dali, ffcv.")
    ] = "auto",
    workers: Annotated[int | None, typer.Option("-j", "--workers", help="Decoding threads.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for scorecard.json; default: the run's.")] = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Evaluate a model and keep its scorecard; a killed evaluation continues where it was."""
    from fastreg.evaluation.from_checkpoint import run
    from fastreg.report import print_scorecard

    card, folder = run(
        checkpoint,
        suite,
        weights=weights,
        model=model,
        data=data,
        data_dir=data_dir,
        size=size,
        crop_pct=crop_pct,
        batch_size=batch_size,
        device=device,
        precision=precision,
        compiled=torchcompile,
        epsilon=epsilon,
        clip=clip,
        fidelity=fidelity,
        constants=constants,
        corruptions=corruptions,
        frost_dir=frost_dir,
        imagenet_c_dir=imagenet_c_dir,
        cifar_c_dir=cifar_c_dir,
        ood_dir=ood_dir,
        odin_split=odin_split,
        seed=seed,
        loader=loader,
        workers=workers,
        out=out,
        runs_root=runs,
        say=typer.echo,
    )
    print_scorecard(card, suite)
    typer.echo(f"scorecard: {folder / 'scorecard.json'}; next: fastreg report {shlex.quote(str(folder))}")


@app.command()
def report(
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[RUN]...", help="Default: the newest run.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The .html file; default: beside the run's card, or above several.")
    ] = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Write one self-contained HTML page about evaluated runs."""
    from fastreg.report import write_report

    page = write_report(folders or (), out, runs_root=runs)
    typer.echo(f"report: {page}")


@app.command()
def paper(
    table: Annotated[str, typer.Argument(help="table1, table2, table3, table4 or figure1.")],
    out: Annotated[Path, typer.Option("--out", help="Picture of figure1.")] = Path("figure1.png"),
    runs: RunsRoot = Path("runs"),
    commands: Annotated[bool, typer.Option("--commands", help="Print what would train and evaluate its rows.")] = False,
    run: Annotated[bool, typer.Option("--run", help="Train and evaluate its rows in turn; resumable.")] = False,
    flags: Annotated[str, typer.Option("--train-flags", help="Further flags of every training.")] = "",
) -> None:
    """Print the paper's numbers beside the runs that exist."""
    from fastreg.report import figure1
    from fastreg.report import paper as print_table
    from fastreg.report import paper_commands as rows

    if commands:
        for words in rows.commands(table, str(runs), flags.split()):
            typer.echo(shlex.join(["fastreg", *words]))
        return
    if run:
        rows.run(table, str(runs), flags.split())
    if table == "figure1":
        typer.echo(f"figure: {figure1(out, runs)}")
    else:
        print_table(table, runs)


@app.command()
def corrupt(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A data set's name, or a folder of images or CIFAR.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write.")],
    corruption: Annotated[str, typer.Option("--corruption", help="all, or names joined by commas.")] = "all",
    severity: Annotated[str, typer.Option("--severity", help="all, or numbers joined by commas.")] = "all",
    split: Annotated[str, typer.Option("--split", help="train or val.")] = "val",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where the data set named SRC lies.")] = None,
    size: Annotated[int | None, typer.Option("--size", help="Pixels; default 224, CIFAR 32.")] = None,
    crop_pct: CropPct = 224 / 256,
    constants: Annotated[str, typer.Option("--constants", help="auto goes by size.")] = "auto",
    frost_dir: Annotated[Path | None, typer.Option("--frost-dir", help="The frost photographs.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Key of every random draw.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 ...")] = "auto",
    batch_size: Annotated[int, typer.Option("-b", "--batch-size", help="Images corrupted at once.")] = 64,
    workers: Annotated[int | None, typer.Option("-j", "--workers", help="Threads.")] = None,
) -> None:
    """Write ImageNet-C's folders, or CIFAR-C's arrays, of your images; a stopped command continues."""
    from fastreg.evaluation.corrupt_dataset import corrupt_dataset

    parts = corrupt_dataset(
        source,
        target,
        corruptions=corruption if corruption == "all" else corruption.split(","),
        severities=severity,
        split=split,
        data_dir=data_dir,
        size=size,
        crop_pct=crop_pct,
        constants=constants,
        frost_dir=frost_dir,
        seed=seed,
        device=device,
        batch_size=batch_size,
        workers=workers,
    )
    typer.echo(f"{target}: {len(parts)} {'part' if len(parts) == 1 else 'parts'}, each read back")


@show.command("corruptions")
def show_corruptions(
    image: Annotated[Path, typer.Argument(help="A photograph.")],
    out: Annotated[Path, typer.Option("--out", help="The picture to write.")] = Path("corruptions.png"),
    corruption: Annotated[str, typer.Option("--corruption", help="all, or names joined by commas.")] = "all",
    size: Annotated[int, typer.Option("--size", help="Pixels.")] = 224,
    constants: Annotated[str, typer.Option("--constants", help="auto goes by size.")] = "auto",
    frost_dir: Annotated[Path | None, typer.Option("--frost-dir", help="The frost photographs.")] = None,
    jpeg: Annotated[bool, typer.Option("--jpeg", help="With ImageNet-C's final JPEG step.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Key of every random draw.")] = 0,
) -> None:
    """Draw a photograph under all 19 corruptions, or some, at five severities."""
    from fastreg.report import contact_sheet

    contact_sheet(
        image,
        out,
        corruptions=None if corruption == "all" else corruption,
        size=size,
        constants=constants,
        frost_dir=frost_dir,
        jpeg=jpeg,
        seed=seed,
        strict=True,
    )
    typer.echo(f"contact sheet: {out}")
