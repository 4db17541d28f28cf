"""``evaluate``: one call, any classifier, any suites, one Scorecard."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastreg.distributed import World, gather_in_order, init_distributed
from fastreg.environment import environment
from fastreg.errors import InputError
from fastreg.evaluation.class_counts import ClassCounts, label_and_class
from fastreg.evaluation.classifier import Classifier, borrowed, device_of
from fastreg.evaluation.config import EvalConfig, make_config, option_parameters
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.imagenet_classes import are_imagenet, imagenet_classes
from fastreg.evaluation.pixel_cache import PixelCache
from fastreg.evaluation.probe import probe
from fastreg.evaluation.scorecard import Scorecard
from fastreg.evaluation.scorecard_file import ScorecardFile
from fastreg.evaluation.suites import ROWS, resolve
from fastreg.evaluation.types import Condition, LeftOut, NoCorruption, SuitePlan
from fastreg.log import log
from fastreg.metrics import Tally
from fastreg.progress import progress
from fastreg.torch_switches import torch_switches


def evaluate(model: nn.Module, suites: str | Iterable[str], data: Any, **options: Any) -> Scorecard:
    """Measure a classifier's robustness and uncertainty.

    Under torchrun each rank measures its share, and all ranks return the same card. The model's device, memory, modes
    and parameters are restored afterwards.

    Args:
        model: takes normalized float images [B, 3, S, S], returns logits [B, K].
        suites: names of :data:`fastreg.evaluation.SUITES`, as one name, a list, or joined by commas.
        data: a Source of ``fastreg.pipelines``, the path of a folder of class folders, or ``(images, labels)``: uint8
            [N, S, S, 3] and int64 [N].
        mean, std: normalization on the [0, 1] scale: "data" (the data set's own; ImageNet's for arrays), three numbers
            (one number stands for all), or None for both: the model takes pixels in [0, 1].
        classes: names of the model's K outputs, for data that holds only some of them; default: the WordNet ids of
            ImageNet, if the model has 1000 outputs and the data's classes are among them.
        scored_classes: the outputs that compete on such data: "subset" (the data's classes, as ImageNet-A and -R are
            scored) or "all".
        precision: "fp32" (or "auto", which means the same): float32 without TF32, with a float32 copy of a model stored
            in half precision; "bf16" or "fp16": autocast, and TF32 for the rest. A float64 model stays float64.
        compiled: run torch.compile's graph of the model.
        device: "cpu", "cuda" or "cuda:1"; default: the model's device.
        batch_size: images per forward pass.
        size: side S of the evaluated images in pixels; default 224, CIFAR 32.
        crop_pct: S over the shorter side after the resize that precedes the center crop.
        interpolation: "bilinear" (as published), "bicubic", "lanczos" or "nearest", Pillow's filters of that resize.
        loader: "auto" is "folder", Pillow's resize and crop as published; "dali" and "ffcv" give other pixels.
        workers: decoding threads.
        seed: key of every random draw.
        epsilon: size of the attacks' perturbation on the [0, 1] scale.
        clip: keep attacked pixels in [0, 1].
        attack_norm: "linf" or "l2" (``epsilon`` is then the length of an image's perturbation), of pgd and autoattack.
        attack_steps, attack_step_size, attack_restarts: of pgd; a step size of None is epsilon / 4.
        attack_target: of pgd: None, or "least_likely" to aim at the class of least probability.
        attack_samples: passes over which pgd averages each gradient, for models with random outputs.
        fidelity: "dataset" (or "auto", which means the same): with ImageNet-C's JPEG step; "memory": without.
        constants: severities of "imagenet224", "imagenet299", "tiny64" or "cifar32"; "auto" selects them by size.
        corruptions, severities: only these, as lists or joined by commas; the suite then has no total.
        frost_dir: folder of the five frost textures.
        imagenet_c_dir, cifar_c_dir, imagenet_c_bar_dir: read the published files there instead of generating them.
        resize_official: resize the files of ``imagenet_c_dir`` and ``imagenet_c_bar_dir`` as wholes if they have
            another size than ``size``.
        perturbations: of imagenet-p and cifar-p: only these, as a list or joined by commas.
        imagenet_p_dir, cifar_p_dir: read the published sequences there instead of generating them.
        ood_dir: folder of the out-of-distribution sets.
        odin_split: leave out the images that ODIN used for tuning.
        ood_scores: the scores of ood-features, as a list or joined by commas; default: all that the model and the data
            allow.
        ood_val_dir: folder of validation images, or OpenOOD's list of them: ood-features chooses the hyperparameters of
            its scores on them. No set contains them.
        fit_data: training images for scores from features, as ``data``.
        fit_images: at most so many of them are read, equally many of each class.
        feature_layer: name of the layer of the features; default: the last linear layer, whose input they are.
        out: folder for scorecard.json, written after every condition. Conditions that it already has for this model,
            data and settings are not measured again.
        name: the model's name on the card.
        provenance: further facts for the card.

    Returns:
        The :class:`Scorecard`; figures in percent.

    Raises:
        InputError: an unknown name or option, data without images, a model that does not fit the data, a missing file.
        RunError: an image that cannot be read, a folder that cannot be written, too little GPU memory.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"`model` must be an nn.Module, but is {type(model).__name__}: wrap it in one.")
    config = make_config(options)
    eval_data = EvalData(data, config.size, config.crop_pct, config.interpolation)
    named = suites.split(",") if isinstance(suites, str) else list(suites or ())
    wanted = resolve(named, eval_data.size, eval_data.name)
    where = device_of(model) if config.device is None else config.device
    half = config.precision in ("bf16", "fp16")
    # attacks need gradients, which a caller's inference mode would not give
    # cuDNN's search may choose another algorithm in another run: float32 figures repeat without it
    switches = torch_switches(tf32=half, cudnn_benchmark=half)
    with torch.inference_mode(False), borrowed(model), switches, init_distributed(where) as world:
        classifier = Classifier(
            model,
            mean=eval_data.mean if config.mean == "data" else config.mean,
            std=eval_data.std if config.std == "data" else config.std,
            device=world.device,
            precision=config.precision,
            compiled=config.compiled,
            batch_size=config.batch_size,
        )
        outputs, names = _match_classes(classifier, eval_data, config)
        config = replace(config, classes=names)
        every = {"classes": "all"} if config.scored_classes == "all" and eval_data.classes < outputs else {}
        card = Scorecard(
            model={"name": config.name or type(model).__name__, "digest": classifier.digest}
            | {"mean": list(classifier.mean), "std": list(classifier.std)},
            data=eval_data.describe(),
            settings={
                "precision": classifier.precision,
                "tf32": half,
                "seed": config.seed,
                "loader": config.loader,
                **({"cudnn_benchmark": True} if half and world.device.type == "cuda" else {}),
                **every,
            },
        )
        path = Path(config.out) / "scorecard.json" if config.out is not None and world.rank == 0 else None
        scorecard_file = ScorecardFile(path)
        _continue(card, scorecard_file)
        # raises InputError for missing files, before anything is decoded
        plans = _plans(wanted, eval_data, config, {name.strip() for name in named})
        gradients = any(c.gradient for plan in plans.values() for c in plan.conditions.values())
        card.provenance = {**environment(), **(config.provenance or {}), "world_size": world.size}
        card.provenance["outputs"] = outputs
        card.provenance["model_notes"] = probe(classifier, eval_data.size, gradients)
        _run(card, plans, classifier, eval_data, world, config, scorecard_file)
    scorecard_file.save(card)
    return card


evaluate.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [*list(inspect.signature(evaluate).parameters.values())[:3], *option_parameters()],
    return_annotation="Scorecard",
)


def _plans(wanted: Sequence[str], eval_data: EvalData, config: EvalConfig, named: Set[str]) -> dict[str, SuitePlan]:
    """The plans of the suites, without those that have none of the corruptions asked for.

    A suite that cannot be measured here is left out with a message, unless it is ``named``.

    Raises NoCorruption if no suite has any of the corruptions, LeftOut for a suite that is named.
    """
    plans, without = {}, []
    for suite in wanted:
        build = ROWS[suite].build
        try:
            if build is not None:
                plans[suite] = build(eval_data, config)
        except NoCorruption as error:
            without.append(error)
        except LeftOut as error:
            if suite in named:
                raise
            log.info(f"left out: {error}")
    if without and not any(ROWS[suite].severities for suite in plans):
        raise without[0]
    for reason in without:
        log.info(f"left out: {reason}")
    return plans


def _match_classes(classifier: Classifier, eval_data: EvalData, config: EvalConfig) -> tuple[int, Sequence[str] | None]:
    """Select the outputs of the data's classes; returns the number of all outputs, and their names if they are known.

    Without ``classes``, folders named by WordNet ids belong to the outputs of a model of ImageNet's 1000 classes, and
    the outputs of a model of 1000 classes are ImageNet's if the data's classes have no names.
    """
    outputs, every = classifier.outputs(eval_data.size), config.scored_classes == "all"
    classes = config.classes
    if classes is None and are_imagenet(eval_data.names, outputs):
        classes = tuple(imagenet_classes())
    columns = eval_data.columns(classes)
    classifier.module.select(columns, every)
    eval_data.fit(classifier.outputs(eval_data.size), chosen=columns is not None)
    if classes is None and eval_data.names and not eval_data.numbered:
        classes = eval_data.names
    elif classes is None and outputs == len(imagenet_classes()):
        classes = tuple(imagenet_classes())
    return outputs, classes


def _run(
    card: Scorecard,
    plans: dict[str, SuitePlan],
    classifier: Classifier,
    eval_data: EvalData,
    world: World,
    config: EvalConfig,
    scorecard_file: ScorecardFile,
) -> None:
    """Run the conditions that have no row yet, one pass each, saving the card after every one."""
    rows = _begin(card, plans, scorecard_file)
    left = [(suite, key) for suite, plan in plans.items() for key in plan.conditions if key not in rows[suite]]
    if not left:
        return
    scorecard_file.probe()  # a folder that cannot be written is found before the work

    columns = None if classifier.module.columns is None else classifier.module.columns.tolist()
    own = (eval_data.names, eval_data.labels, eval_data.classes)
    counts = ClassCounts(scorecard_file.path, *own, card, columns, config.classes)

    @cache
    def pixels() -> PixelCache:  # decoded for the first condition that needs it; conditions over files do not
        return eval_data.decode(world, batch_size=config.batch_size, loader=config.loader, workers=config.workers)

    def measure(condition: Condition, bar: Any = None, note: str = "") -> tuple[dict[str, Any], Tensor]:
        return _pass(classifier, condition, pixels, world, config, counts, bar, note)

    references: dict[tuple[str, str], Tensor] = {}  # values of the conditions that others are compared with
    total = sum(plans[suite].conditions[key].n or len(eval_data) for suite, key in left) // world.size
    with progress("evaluate", total) as bar:
        for suite, key in left:
            condition = plans[suite].conditions[key]
            start = time.monotonic()
            row, values = measure(condition, bar, f"{suite} {key}" if key != suite else suite)
            if condition.names is not None:
                counts.of(key, condition.names).add(suite, key, clean=True)
            elif condition.compare is None and condition.collect is None:
                counts.add(suite, key, clean=condition.reference)
            if not condition.bins:
                row.pop("bins", None)
            if condition.compare is not None:
                name = _reference(plans, suite)
                if name == (suite, key):
                    references[name] = values
                elif name not in references:
                    references[name] = measure(plans[name[0]].conditions[name[1]])[1]
                row = condition.compare(references[name], values, row)
            if condition.reference:
                references[suite, key] = values
            rows[suite][key] = {**row, **condition.extra, "seconds": round(time.monotonic() - start, 3)}
            card.suites[suite]["measured"] = {key: card.provenance[key] for key in ("date", "gpu", "packages")}
            scorecard_file.save(card)
            if condition.finish is not None and world.rank == 0:
                condition.finish()


def _begin(
    card: Scorecard, plans: dict[str, SuitePlan], scorecard_file: ScorecardFile
) -> dict[str, dict[str, dict[str, Any]]]:
    """The rows of each suite that the card already has."""
    rows = {}
    for suite, plan in plans.items():
        before = set(card.results(suite))
        other = suite in card.suites and card.suites[suite]["settings"] != plan.settings
        prints = {key: condition.extra.get("fingerprint") for key, condition in plan.conditions.items()}
        rows[suite] = card.begin(suite, plan.settings, prints)
        lost = sorted(before - set(rows[suite]))
        if lost and other:
            scorecard_file.replace_reason = scorecard_file.replace_reason or f"{suite} was measured with other settings"
        elif lost and scorecard_file.path is not None:
            log.info(f"the files of {suite} {', '.join(lost)} changed: measured again.")
    return rows


def _reference(plans: dict[str, SuitePlan], suite: str) -> tuple[str, str]:
    """(suite, condition) that the conditions of a suite are compared with: its own, otherwise the clean images."""
    return next((name, key) for name in (suite, *plans) for key, c in plans[name].conditions.items() if c.reference)


def _pass(
    classifier: Classifier,
    condition: Condition,
    pixels: Callable[[], PixelCache],
    world: World,
    config: EvalConfig,
    counts: ClassCounts,
    bar: Any,
    note: str,
) -> tuple[dict[str, Any], Tensor]:
    """One pass over a condition's images: its row, and all values in the set's order. Synchronizes at its end."""
    if condition.prepare is not None:
        condition.prepare(classifier, world, config)
    tally = Tally(world.device)
    kept, pairs, indices = [], [], []
    batches: Any = condition.batches(world, config) if condition.batches else pixels().batches(config.batch_size)
    for batch in batches:
        logits = condition.logits(classifier, batch)
        confidence = tally.update(logits, batch.labels)
        pairs.append(label_and_class(batch.labels, logits, confidence))
        kept.append(confidence if condition.collect is None else condition.collect(logits, batch.labels))
        indices.append(batch.indices)
        if bar is not None:
            bar.advance(len(batch.labels), note=note)
    tally.merge()
    row = tally.result() | _counts(condition, world)
    if condition.row is not None:
        row = condition.row(row, world)
    none = torch.empty(0)
    order = torch.cat(indices or [none.long()])
    counts.pairs = gather_in_order(torch.cat(pairs or [none.long().view(0, 2)]), order, world).numpy()
    return row, gather_in_order(torch.cat(kept or [none]), order, world)


def _counts(condition: Condition, world: World) -> dict[str, int]:
    """The further counts of a condition, over all ranks, that are not 0."""
    if not condition.counts:
        return {}
    own = torch.stack([torch.as_tensor(count(), device=world.device).long() for count in condition.counts.values()])
    if dist.is_initialized():
        dist.all_reduce(own)
    return {name: count for name, count in zip(condition.counts, own.tolist()) if count}


def _continue(card: Scorecard, scorecard_file: ScorecardFile) -> None:
    """Take over the rows of the folder's scorecard, on every rank, unless it belongs to another model."""
    older = scorecard_file.previous()
    if dist.is_initialized():
        shared = [older]
        dist.broadcast_object_list(shared, src=0)
        older = shared[0]
    if not card.adopt(older) and older is not None:
        scorecard_file.replace_reason = "it belongs to another model, data set or setting"
