"""Natural shifts: new test sets of ImageNet's classes, each with its published convention.

ImageNet-A and -R: 200 classes, whose outputs alone compete. ImageNet-Sketch and the three sets of ImageNet-V2: all 1000
outputs. ObjectNet: the 113 of its 313 classes that ImageNet has; the score of a class is its largest output, only
outputs of the 113 compete, and the red border of 2 pixels is cut off. The total is the mean error of the five sets A,
R, Sketch, V2 (matched frequency) and ObjectNet.

``natural_classes.json`` has the WordNet ids of A and R (the authors' ``eval.py``) and of each class of ObjectNet (its
``objectnet_to_imagenet_1k.json`` and ``folder_to_objectnet_label.json``).

Source: Hendrycks et al. 2021 (1907.07174, 2006.16241); Wang et al. 2019 (1905.13549); Recht et al. 2019 (1902.10811);
Barbu et al. 2019 (ObjectNet, NeurIPS); the collapse of ObjectNet's outputs as in Taori et al. 2020 (2007.00644); the
mean of five as in Wortsman et al. 2022 (2109.01903).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.config import PROTOCOL, EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.imagenet_classes import imagenet_classes
from fastreg.evaluation.pixel_cache import Pixels
from fastreg.evaluation.published_sets import FolderBatches
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Condition, Figure, LeftOut, Suite, SuitePlan, Table
from fastreg.pipelines.address import is_address
from fastreg.pipelines.datasets import DATASETS
from fastreg.pipelines.image import open_image, to_rgb
from fastreg.pipelines.natural_sets import NATURAL_SETS, find_set, how_to_get, set_roots
from fastreg.pipelines.source import FolderSource
from fastreg.pipelines.storage import find_split
from fastreg.pipelines.subset import Subset

NAME = "natural"
BORDER = 2  # pixels of ObjectNet's red border
TOTAL = "natural_error"
MEAN_OF = ("imagenet-a", "imagenet-r", "imagenet-sketch", "imagenetv2-matched-frequency", "objectnet")
HEADINGS = {
    "imagenet-a": "A",
    "imagenet-r": "R",
    "imagenet-sketch": "Sketch",
    "imagenetv2-matched-frequency": "V2",
    "imagenetv2-threshold0.7": "V2 0.7",
    "imagenetv2-top-images": "V2 top",
    "objectnet": "ObjectNet",
}


def key_of(name: str, figure: str = "error") -> str:
    """The summary key of a set's figure: ``imagenet_a_error``."""
    return f"{name.replace('-', '_').replace('.', '')}_{figure}"


@cache
def set_classes(name: str) -> dict[str, list[str]]:
    """The class folders of a set, sorted, each with the WordNet ids of its outputs."""
    known = json.loads(Path(__file__).with_name("natural_classes.json").read_text())
    if name == "objectnet":
        return dict(sorted(known[name].items()))
    if name.startswith("imagenetv2-"):
        return {str(k): [wnid] for k, wnid in enumerate(imagenet_classes())}  # a folder's name is its output
    return {wnid: [wnid] for wnid in known.get(name, imagenet_classes())}


def build(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """One condition per set found in the data's folder, the folder around it, $FASTREG_DATA or ./data.

    Raises:
        LeftOut: none of the sets is there, the model's outputs are not ImageNet's 1000 classes, or a set's folder has a
            class folder that is not its own, or none that is.
    """
    root = getattr(eval_data.source, "root", None)
    roots = set_roots(None if root is None or is_address(root) else root)
    paths = {name: find_set(name, roots) for name in NATURAL_SETS}
    if not any(paths.values()):
        searched = ", ".join(dict.fromkeys(map(str, roots)))
        raise LeftOut(
            f"{NAME} needs one of {', '.join(NATURAL_SETS)} as a folder in {searched}: "
            f"`fastreg data info {NAME}` prints their addresses."
        )
    outputs = _outputs(config.classes)
    every = config.scored_classes == "all"
    found = {name: _condition(name, path, outputs, every, eval_data, config) for name, path in paths.items() if path}
    return SuitePlan({"classes": config.scored_classes}, found)


def _outputs(names: Sequence[str] | None) -> dict[str, int]:
    """The output of each of ImageNet's WordNet ids. Raises LeftOut if the model lacks one."""
    outputs = {wnid: index for index, name in enumerate(names or ()) for wnid in name.split("|")}
    lacking = [wnid for wnid in imagenet_classes() if wnid not in outputs]
    if lacking:
        has = f"{len(names):,} outputs, none for {lacking[0]}" if names else "outputs without such names"
        raise LeftOut(
            f"{NAME} needs a model whose outputs are ImageNet's 1000 classes (WordNet ids), and this one has {has}: "
            f"leave the suite out, or give the names of the outputs as `classes`."
        )
    return outputs


def _condition(
    name: str, path: Path, outputs: Mapping[str, int], every: bool, eval_data: EvalData, config: EvalConfig
) -> Condition:
    classes, base = set_classes(name), FolderSource(path.parent, name, path.name, DATASETS["imagenet"], folder=path)
    strange = [folder for folder in base.classes if folder not in classes]
    if (strange and name != "objectnet") or len(strange) == len(base.classes):
        raise LeftOut(
            f"{path} has the class folder {strange[0]!r}, which is not of {name}: move it away, or {how_to_get(name)}."
        )
    own = np.array([folder in classes for folder in base.classes])
    source = (Borderless if name == "objectnet" else Subset)(base, np.flatnonzero(own[base.labels]), base.split)
    position = {folder: index for index, folder in enumerate(classes)}
    source.renumber(tuple(classes), {folder: position.get(folder, 0) for folder in base.classes})
    scored = Scored([[outputs[wnid] for wnid in ids] for ids in classes.values()], every, len(set(outputs.values())))
    names = [wnid if name.startswith("imagenetv2-") else folder for folder, (wnid, *_) in classes.items()]
    by_output = {index: wnid for wnid, index in outputs.items()}
    # ObjectNet's border is cut off from decoded pixels, and ffcv reads no folders
    loader = PROTOCOL if name == "objectnet" or config.loader == "ffcv" else config.loader
    return Condition(
        scored,
        FolderBatches(source, eval_data.size, 1 / config.crop_pct, loader),
        len(source),
        {"folder": str(path), "fingerprint": source.fingerprint},
        names=[*names, *(by_output[index] for index in scored.rest)],
    )


class Borderless(Subset):
    """ObjectNet's images without their red border."""

    def read(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3]; raises one of ``image.ERRORS`` for a broken file."""
        stored = to_rgb(open_image(super().read(index)))[BORDER:-BORDER, BORDER:-BORDER]
        if not stored.size:
            raise ValueError(f"it is no larger than its border of {BORDER} pixels")
        return np.ascontiguousarray(stored)


class Scored:
    """Function from a batch to the logits of a set's classes: of each class the largest of its outputs.

    Args:
        groups: the outputs of each class.
        every: whether the other outputs follow, as classes without images.
        outputs: number of the model's outputs.
    """

    def __init__(self, groups: Sequence[Sequence[int]], every: bool, outputs: int) -> None:
        taken = {index for group in groups for index in group}
        self.rest = [index for index in range(outputs) if index not in taken] if every else []
        widest = max(map(len, groups))
        rows = [*groups, *([index] for index in self.rest)]
        self.index = torch.tensor([[*row, *[row[0]] * (widest - len(row))] for row in rows])

    def __call__(self, classifier: Classifier, batch: Pixels) -> Tensor:
        logits = classifier.every_output().images(batch.images)
        self.index = self.index.to(logits.device)  # copied once
        return logits[:, self.index].amax(-1)


def missing(card: ScorecardData, suite: str) -> list[str]:
    """The sets that are not measured, or not on all of their images."""
    rows = card.results(suite)
    return [name for name, row in NATURAL_SETS.items() if rows.get(name, {}).get("n") != row.images]


def summary(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """The errors and calibration errors of the sets, and the mean error of the five whole ones."""
    rows = card.results(suite)
    figures = {key_of(name): row["error"] for name, row in rows.items()}
    figures |= {key_of(name, "ece"): row["ece"] for name, row in rows.items() if row.get("ece") is not None}
    if not set(missing(card, suite)) & set(MEAN_OF):
        figures[TOTAL] = sum(rows[name]["error"] for name in MEAN_OF) / len(MEAN_OF)
    return figures


def altered(card: ScorecardData, suite: str) -> list[str]:
    """Departures from the published conventions."""
    every = card.suite_settings(suite).get("classes") == "all"
    return ["all outputs compete on A, R and ObjectNet, instead of those of their classes"] if every else []


def notes(card: ScorecardData, suite: str) -> list[str]:
    """Missing sets, and sets that lack images."""
    rows = card.results(suite)
    if not rows:
        return []
    absent = [name for name in NATURAL_SETS if name not in rows]
    messages = [f"{suite}: not found: {', '.join(absent)}."] if absent else []
    for name, row in rows.items():
        if row["n"] != NATURAL_SETS[name].images:
            messages.append(f"{suite} {name}: {row['n']:,} images, while the set has {NATURAL_SETS[name].images:,}.")
    if set(missing(card, suite)) & set(MEAN_OF):
        messages.append(f"{suite} is partial, so it has no mean of {', '.join(HEADINGS[name] for name in MEAN_OF)}.")
    return messages


def tables(card: ScorecardData, suite: str) -> list[Table]:
    """The figures of every set."""
    keys = ("error", "top5_error", "ece", "nll")
    headings = ["set", "images", "top-1", "top-5", "ECE", "NLL"]
    rows = [[name, f"{row['n']:,}", *map(row.get, keys)] for name, row in card.results(suite).items()]
    return [Table(f"{suite}: errors of each set in percent, NLL in nats", headings, rows)] if rows else []


def stand_in(suites: str | Iterable[str], data_dir: str | Path | None) -> Path | None:
    """The folder to open in place of ImageNet if only this suite is asked for and ``data_dir`` has the sets alone."""
    only = suites if isinstance(suites, str) else ",".join(suites)
    if only.strip() != NAME or data_dir is None or is_address(data_dir):
        return None
    root = Path(data_dir)
    if not root.is_dir() or find_split(root, "val").kind:
        return None
    return next((path for name in NATURAL_SETS if name != "objectnet" and (path := find_set(name, [root]))), None)


def _figures() -> dict[str, Figure]:
    found = {TOTAL: Figure("Natural", "mean top-1 error of A, R, Sketch, V2 and ObjectNet")}
    for name, heading in HEADINGS.items():
        own = (NAME, name)
        found[key_of(name)] = Figure(heading, f"top-1 error on {name}", share=True, images_of=own)
    for name, heading in HEADINGS.items():
        about = f"expected calibration error on {name}, 20 bins"
        found[key_of(name, "ece")] = Figure(f"{heading} ECE", about, secondary=True)
    return found


SUITE = Suite(
    NAME,
    "ImageNet-A, -R, -Sketch, three sets of -V2 and ObjectNet, read from their folders",
    build,
    figures=_figures(),
    summary=summary,
    altered=altered,
    notes=notes,
    tables=tables,
)
