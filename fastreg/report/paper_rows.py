"""The paper's four tables as printed, and the row that has a run's methods."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastreg.errors import unknown
from fastreg.metrics.corruption import CATEGORIES

TABLES = {
    "table1": ("table1_cifar100", "CIFAR-100, PyramidNet-200: all methods, without and with label smoothing"),
    "table2": ("table2_noise_augmentation", "CIFAR-100: corruption errors by category (raw)"),
    "table3": ("table3_well_regularised", "CIFAR-100: well regularized against targeted methods"),
    "table4": ("table4_imagenet", "ImageNet, ResNet-50: Noise to Digital are AlexNet-normalized"),
}
DATASET = {"table1": "cifar100", "table2": "cifar100", "table3": "cifar100", "table4": "imagenet"}
# data set -> (images, classes, pixels per side) of the test set that the paper measures on
MEASURED = {"imagenet": (50_000, 1000, 224), "cifar100": (10_000, 100, 32)}
# column of the JSON -> (heading, figure of a scorecard's summary)
COLUMNS = {
    "average": ("Average", "average"),
    "cifar100_top1_err": ("Clean", "clean_error"),
    "clean": ("Clean", "clean_error"),
    "fgsm_top1_err": ("FGSM", "fgsm_error"),
    "fgsm": ("FGSM", "fgsm_error"),
    "cifar_c_top1_err": ("CIFAR-C", "cifar_c_error"),
    "cifar_c_err": ("CIFAR-C", "cifar_c_error"),
    "occlusion_top1_err": ("Occlusion", "occlusion_error"),
    "occlusion": ("Occlusion", "occlusion_error"),
    "ece": ("ECE", "ece"),
    "ood_detection_err": ("OOD", "ood_error"),
    "noise_err": ("Noise", "cifar_c_noise"),
    "blur_err": ("Blur", "cifar_c_blur"),
    "weather_err": ("Weather", "cifar_c_weather"),
    "digital_err": ("Digital", "cifar_c_digital"),
    "noise": ("Noise", "ce_noise"),
    "blur": ("Blur", "ce_blur"),
    "weather": ("Weather", "ce_weather"),
    "digital": ("Digital", "ce_digital"),
    "mce": ("mCE", "mce"),
}
_REGS = {
    "Baseline": "none",
    "ShakeDrop": "shakedrop",
    "SD": "shakedrop",
    "Cutout": "cutout",
    "Mixup": "mixup",
    "CutMix": "cutmix",
    "Adversarial Logit Pairing": "alp",
    "Adversarial Training": "adversarial",
    "w/o Random Crop & Flip": "no_crop_flip",
    "Add Gaussian Noise": "gaussian_noise",
    "OOD augment (SVHN)": "ood_svhn",
    "OOD augment (GAN)": "ood_gan",
}
ROUNDING = 0.011  # between a printed error and the mean of printed errors
_SMOOTHING = ("LS", "Label Smoothing")


@cache
def tables() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("paper_tables.json").read_text())


def rows(table: str) -> list[dict[str, Any]]:
    """The rows of a table ("table1" to "table4") as printed. Raises InputError for another name."""
    if table not in TABLES:
        raise unknown("table", table, [*TABLES, "figure1"])
    return tables()[TABLES[table][0]]


def columns(table: str) -> dict[str, tuple[str, str]]:
    """The table's columns in printed order: JSON key -> (heading, summary figure)."""
    return {key: COLUMNS[key] for key in rows(table)[0] if key in COLUMNS}


def identity(row: dict[str, Any]) -> tuple[frozenset[str], bool]:
    """(methods, label smoothing) of a printed row."""
    words = [word.strip() for word in row["method"].split(" + ")]
    smoothing = bool(row.get("label_smoothing", False)) or any(word in _SMOOTHING for word in words)
    methods = {_REGS[word] for word in words if word not in _SMOOTHING}
    return frozenset(methods or {"none"}), smoothing


def label(row: dict[str, Any]) -> str:
    """The method's name with ``+ LS`` where the table prints smoothing as a column of its own."""
    plain = any(word in row["method"].split(" + ") for word in _SMOOTHING)
    return row["method"] + (" + LS" if row.get("label_smoothing") and not plain else "")


def match(training: Mapping[str, Any], table: str) -> dict[str, Any] | None:
    """The row of ``table`` with the methods and the label smoothing of a run's settings, or None.

    The adversarial rows use label smoothing and do not print it, so they are compared by method alone.
    """
    return next((row for row in rows(table) if has_methods(training, *identity(row))), None)


def contradictions(table: str) -> str:
    """A sentence about CIFAR-C errors that are not the mean of the table's own categories; empty without any.

    CIFAR-C's error is the mean over its corruptions, so it is the mean of its categories weighted by their size.
    """
    printed = rows(table)
    by_category = {key: name.removeprefix("cifar_c_") for key, (_, name) in columns(table).items()}
    weights = {key: len(CATEGORIES[name]) for key, name in by_category.items() if name in CATEGORIES}
    total = next((key for key, (_, name) in columns(table).items() if name == "cifar_c_error"), None)
    if total is None or len(weights) < len(CATEGORIES):
        return ""
    means = [sum(n * row[key] for key, n in weights.items()) / sum(weights.values()) for row in printed]
    if all(abs(mean - row[total]) <= ROUNDING for mean, row in zip(means, printed)):
        return ""
    given, found = (" / ".join(f"{value:.2f}" for value in values) for values in ([r[total] for r in printed], means))
    weighted = "/".join(map(str, weights.values()))
    return (
        f"The paper contradicts itself: its categories, weighted {weighted}, give CIFAR-C {found}; it prints {given}."
    )


def has_methods(training: Mapping[str, Any], methods: frozenset[str], smoothing: bool) -> bool:
    """Whether a run's settings (reg, ls) have these methods, and label smoothing or not."""
    own = frozenset(str(training.get("reg") or "none").split("+"))
    smoothed = float(training.get("ls") or 0) > 0
    return own == methods and (smoothed == smoothing or bool(own & {"alp", "adversarial"}))
