"""RobustBench's models: ``robustbench:NAME``, or ``robustbench:THREAT/NAME`` for a name of several threat models.

They take pixels in [0, 1] and normalize them themselves. Croce et al., RobustBench: a standardized adversarial
robustness benchmark (NeurIPS 2021).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fastreg.errors import InputError, unknown

INSTALL = "pip install --no-deps robustbench && pip install requests tqdm timm torchvision"
DATASETS = {10: "cifar10", 100: "cifar100", 1000: "imagenet"}  # by number of classes


class Entry(NamedTuple):
    """A row of RobustBench's model zoo."""

    dataset: str
    threat: str
    name: str
    build: Any  # function that returns the architecture

    @property
    def full_name(self) -> str:
        return f"robustbench:{self.threat}/{self.name}"

    @property
    def num_classes(self) -> int:
        return next(classes for classes, dataset in DATASETS.items() if dataset == self.dataset)


def find_entry(robustbench: Any, name: str, num_classes: int | None = None) -> Entry:
    """The entry of a name.

    Args:
        robustbench: the module ``robustbench.model_zoo``.
        name: ``NAME`` or ``THREAT/NAME``; threat: Linf, L2 or corruptions. Without it, the first of these three.
        num_classes: 10, 100 or 1000, the data set; None: the only data set that has the name.

    Raises:
        InputError: an unknown name or number of classes, or several data sets that have the name.
    """
    if num_classes is not None and num_classes not in DATASETS:
        raise InputError(
            f"`model` robustbench:{name} is for {', '.join(DATASETS.values())}, not for {num_classes} classes."
        )
    threat, _, plain = name.rpartition("/")
    entries = [
        Entry(dataset.value, kind.value, one, row["model"])
        for dataset, kinds in robustbench.model_dicts.items()
        for kind, rows in kinds.items()
        for one, row in rows.items()
        if num_classes in (None, *(n for n, known in DATASETS.items() if known == dataset.value))
    ]
    found = [entry for entry in entries if entry.name == plain and threat in ("", entry.threat)]
    if not found:
        own = DATASETS.get(num_classes or 0, "")
        known = [f"{entry.threat}/{entry.name}" if threat else entry.name for entry in entries]
        raise unknown(f"RobustBench model{f' for {own}' if own else ''}", name, list(dict.fromkeys(known)))
    datasets = sorted({entry.dataset for entry in found})
    if len(datasets) > 1:
        raise InputError(
            f"`model` robustbench:{name} is there for {' and '.join(datasets)}: give the number of classes as "
            f"`num_classes`, or the data set as `data`."
        )
    return found[0]


def build_robustbench(package: Any, name: str, num_classes: int, kw: dict[str, Any]) -> nn.Module:
    """The architecture of an entry, for training."""
    if kw:
        raise InputError(f"`model` robustbench:{name} takes no arguments, but got {', '.join(kw)}.")
    return find_entry(package.model_zoo, name, num_classes).build()


def load_robustbench(package: Any, name: str, num_classes: int | None) -> tuple[nn.Module, Entry]:
    """An entry's model with its weights, which are downloaded into torch's hub folder once."""
    entry = find_entry(package.model_zoo, name, num_classes)
    folder = Path(torch.hub.get_dir()) / "robustbench"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.load and pretrained=
        net = package.utils.load_model(entry.name, str(folder), entry.dataset, entry.threat)
    return net, entry
