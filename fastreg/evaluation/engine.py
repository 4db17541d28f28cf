"""``evaluate``: one call, any classifier, any suites, one Scorecard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastreg.distributed import init_distributed
from fastreg.environment import environment
from fastreg.errors import InputError, unknown
from fastreg.evaluation.build_suite import plan
from fastreg.evaluation.classifier import Classifier, borrowed, device_of, precision_of
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.pixel_cache import CROP_PCT, LOADERS, PROTOCOL, PixelCache
from fastreg.evaluation.scorecard import Scorecard
from fastreg.evaluation.scorecard_file import ScorecardFile
from fastreg.evaluation.suites import DERIVED, resolve
from fastreg.evaluation.types import Condition, EvalConfig, Place, SuitePlan
from fastreg.metrics import Tally, auroc, detection_error, fpr95
from fastreg.progress import progress
from fastreg.torch_switches import torch_switches


def evaluate(
    model: nn.Module,
    suites: str | Iterable[str],
    data: Any,
    *,
    mean: Sequence[float] | str | None = "data",
    std: Sequence[float] | str | None = "data",
    device: str | torch.device | None = None,
    batch_size: int = 128,
    precision: str = "auto",
    size: int | None = None,
    crop_pct: float = CROP_PCT,
    seed: int = 0,
    epsilon: float = 8 / 255,
    clip: bool = True,
    fidelity: str = "auto",
    constants: str = "auto",
    corruptions: str | Iterable[str] | None = None,
    severities: Iterable[int] | None = None,
    frost_dir: str | Path | None = None,
    imagenet_c_dir: str | Path | None = None,
    cifar_c_dir: str | Path | None = None,
    ood_dir: str | Path | None = None,
    odin_split: bool = False,
    classes: Sequence[str] | None = None,
    compiled: bool = False,
    loader: str = "auto",
    workers: int | None = None,
    out: str | Path | None = None,
    name: str | None = None,
    provenance: dict[str, Any] | None = None,
) -> Scorecard:
    """Evaluate a classifier and return its Scorecard (figures in percent).

    ``model`` takes normalised [B, 3, h, w] and returns logits [B, K]; with ``mean=None`` it takes pixels in [0, 1], and
    by default the data set's own mean and std are used; for arrays, which have none, ImageNet's. ``suites``: a name, a
    list, or names joined by commas (``fastreg.evaluation.SUITES``). ``data``: a Source of ``fastreg.pipelines``, the
    path of a folder of class folders, or ``(images uint8 [N, S, S, 3], labels [N])``. ``classes``: the names of the
    model's outputs, for data that holds only some of them. ``device``: default where the model lies; it is back there,
    in its own memory and modes, at the end. ``precision``: "fp32", "bf16" or "fp16"; "auto" is that of the model's own
    parameters. ``crop_pct``: ``size`` over the side that the shorter one is resized to before the centre is cut out.

    ``epsilon`` and ``clip`` belong to fgsm and pgd, in pixel space. ``fidelity``: "dataset" (with ImageNet-C's JPEG
    step, the default) or "memory". ``corruptions`` and ``severities`` restrict a corruption suite, which then has no
    total. ``imagenet_c_dir`` and ``cifar_c_dir`` read the official files instead of generating them.

    ``out``: a folder that gets scorecard.json after every condition; what it holds already for this model, data and
    settings is not run again. ``loader``: "auto" is the published protocol, Pillow's resize and crop, on any device;
    "dali" and "ffcv" decode faster, to other pixels, when asked for. Under torchrun every rank takes its share and all
    return the same card.

    Raises InputError for unknown names, data without images, a model and data that do not fit each other, and missing
    assets.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model must be an nn.Module, but is {type(model).__name__}: wrap it in one.")
    if fidelity not in ("auto", "dataset", "memory"):
        raise unknown("fidelity", fidelity, ("auto", "dataset", "memory"))
    if not 0 < epsilon <= 1:
        raise InputError(f"--epsilon is {epsilon:g}, but pixels lie in [0, 1]: give it on that scale, such as 8/255.")
    if loader not in LOADERS:
        raise unknown("loader", loader, LOADERS)
    if batch_size < 1:
        raise InputError(f"--batch-size {batch_size}: it must be 1 or more.")
    options = EvalConfig(
        seed=seed,
        epsilon=epsilon,
        clip=clip,
        fidelity="dataset" if fidelity == "auto" else fidelity,
        constants=constants,
        corruptions=corruptions,
        severities=severities,
        frost_dir=frost_dir,
        imagenet_c_dir=imagenet_c_dir,
        cifar_c_dir=cifar_c_dir,
        ood_dir=ood_dir,
        odin_split=odin_split,
    )
    loader = PROTOCOL if loader == "auto" else loader
    eval_data = EvalData(data, size, crop_pct)
    wanted = resolve(suites, eval_data.size, eval_data.name)
    where = device_of(model) if device is None else device
    rough = precision_of(model, precision)[0] in ("bf16", "fp16")
    loading = {"loader": loader, "workers": workers}
    # attacks need gradients, which a caller's inference mode would not give
    with (
        torch.inference_mode(False),
        borrowed(model),
        torch_switches(tf32=rough),
        _placed(where, batch_size, loading) as place,
    ):
        classifier = Classifier(
            model,
            mean=eval_data.mean if isinstance(mean, str) else mean,
            std=eval_data.std if isinstance(std, str) else std,
            device=place.device,
            precision=precision,
            columns=eval_data.columns(classes),
            compiled=compiled,
            batch_size=batch_size,
        )
        eval_data.fit(classifier.outputs(eval_data.size))
        card = Scorecard(
            model={"name": name or type(model).__name__, "digest": classifier.digest}
            | {"mean": list(classifier.mean), "std": list(classifier.std)},
            data=eval_data.describe(),
            settings={"precision": classifier.precision, "tf32": rough, "seed": seed, "loader": loader},
        )
        scorecard_file = ScorecardFile(Path(out) / "scorecard.json" if out is not None and place.rank == 0 else None)
        _continue(card, scorecard_file)
        # whatever is missing is said here, before anything is decoded
        work = {suite: plan(suite, eval_data, options) for suite in wanted if suite not in DERIVED}
        card.provenance = {**environment(), **(provenance or {}), "world_size": place.world}
        _run(card, work, classifier, eval_data, place, scorecard_file)
    scorecard_file.save(card)
    return card


def _run(
    card: Scorecard,
    work: dict[str, SuitePlan],
    classifier: Classifier,
    eval_data: EvalData,
    place: Place,
    scorecard_file: ScorecardFile,
) -> None:
    """Run the conditions that have no row yet, one pass each, saving the card after every one."""
    rows = {}
    for suite, w in work.items():
        before = set(card.results(suite))
        other = suite in card.suites and card.suites[suite]["settings"] != w.settings
        rows[suite] = card.begin(suite, w.settings, {key: s.extra.get("fingerprint") for key, s in w.steps.items()})
        lost = sorted(before - set(rows[suite]))
        if lost and other:
            scorecard_file.replace_reason = scorecard_file.replace_reason or f"{suite} was measured with other settings"
        elif lost and scorecard_file.path is not None:
            print(f"the files of {suite} {', '.join(lost)} changed: measured again.")
    left = [(suite, key) for suite, w in work.items() for key in w.steps if key not in rows[suite]]
    if not left:
        return
    scorecard_file.probe()  # a folder that cannot be written is found before the work

    @cache
    def canvas() -> PixelCache:  # decoded when a condition first needs it: those over files never do
        return eval_data.canvas(
            device=place.device, batch_size=place.batch_size, rank=place.rank, world=place.world, **place.loading
        )

    inside: Tensor | None = None  # confidences of the clean images, for out-of-distribution scores
    total = sum(work[suite].steps[key].n or len(eval_data) for suite, key in left) // place.world
    with progress("evaluate", total) as bar:
        for suite, key in left:
            step = work[suite].steps[key]
            start = time.monotonic()
            row, confidence = _pass(classifier, step, canvas, place, bar, f"{suite} {key}" if key != suite else suite)
            if suite == "clean":
                inside = confidence
            elif step.out:
                if inside is None:
                    inside = _pass(classifier, work["clean"].steps["clean"], canvas, place, None, "")[1]
                first = work[suite].settings["first"]
                # ODIN's split takes as many of its own images as the other set has
                row = _detection(inside[first : first + len(confidence) if first else None], confidence, row)
            if suite != "clean":
                row.pop("bins", None)
            rows[suite][key] = {**row, **step.extra, "seconds": round(time.monotonic() - start, 3)}
            card.suites[suite]["measured"] = {key: card.provenance[key] for key in ("date", "gpu", "packages")}
            scorecard_file.save(card)


def _pass(
    classifier: Classifier, step: Condition, canvas: Callable[[], PixelCache], place: Place, bar: Any, note: str
) -> tuple[dict[str, Any], Tensor]:
    """One pass over a condition's images: its row, and all confidences in the set's order. Synchronises at its end."""
    tally = Tally(place.device)
    confidences, indices = [], []
    for batch in step.batches(place) if step.batches else canvas().batches(place.batch_size):
        confidences.append(tally.update(step.logits(classifier, batch), batch.labels))
        indices.append(batch.indices)
        if bar is not None:
            bar.advance(len(batch.labels), note=note)
    tally.merge()
    none = torch.empty(0)
    return tally.result(), _gather(torch.cat(confidences or [none]), torch.cat(indices or [none.long()]), place)


def _gather(values: Tensor, indices: Tensor, place: Place) -> Tensor:
    """All ranks' values in the order of their indices, on the host."""
    parts: list[Any] = [(values.cpu(), indices)]
    if place.world > 1:
        parts = [None] * place.world
        dist.all_gather_object(parts, (values.cpu(), indices))
    order = torch.cat([i for _, i in parts]).argsort()
    return torch.cat([v for v, _ in parts])[order]


def _detection(inside: Tensor, outside: Tensor, row: dict[str, Any]) -> dict[str, Any]:
    """The row of one out-of-distribution set. Images without a softmax score 0: nothing could look less familiar.

    A side without any softmax has no figures (None).
    """
    lost = {"nonfinite": int(outside.isnan().sum()), "nonfinite_in": int(inside.isnan().sum())}
    told = lost["nonfinite"] < len(outside) and lost["nonfinite_in"] < len(inside)
    inside, outside = inside.nan_to_num(0.0), outside.nan_to_num(0.0)
    figures = {"detection_error": detection_error, "auroc": auroc, "fpr95": fpr95}
    return {
        "n": row["n"],
        "n_in": len(inside),
        **lost,
        **{name: figure(inside, outside) if told else None for name, figure in figures.items()},
        "confidence": row["confidence"],
        "histogram_in": torch.histc(inside, 40, 0, 1).long().tolist(),
        "histogram_out": torch.histc(outside, 40, 0, 1).long().tolist(),
    }


def _continue(card: Scorecard, scorecard_file: ScorecardFile) -> None:
    """Take over what the folder's scorecard holds already, on every rank, unless it is another model's."""
    older = scorecard_file.previous()
    if dist.is_initialized():
        shared = [older]
        dist.broadcast_object_list(shared, src=0)
        older = shared[0]
    if not card.adopt(older) and older is not None:
        scorecard_file.replace_reason = "it belongs to another model, data set or setting"


@contextmanager
def _placed(device: str | torch.device, batch_size: int, loading: dict[str, Any]) -> Iterator[Place]:
    """This process among those that torchrun started."""
    with init_distributed(device) as world:
        yield Place(world.device, world.rank, world.size, batch_size, loading)
