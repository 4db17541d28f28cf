"""``fastreg eval``: measure a model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fastreg.cli import app
from fastreg.cli.shared import CropPct, RunsRoot


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
