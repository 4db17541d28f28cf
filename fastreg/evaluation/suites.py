"""The table of suites: one row per suite, in the order in which they are measured.

A new suite is a row here, and a module for its conditions if ``conditions.py`` lacks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from fastreg.errors import InputError, unknown
from fastreg.evaluation import attack_suites, build_suite, corruption_suite, ood, published_sets
from fastreg.evaluation.c_bar_suite import SUITE as IMAGENET_C_BAR
from fastreg.evaluation.calibration_extended import SUITE as CALIBRATION_EXTENDED
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.natural_suite import SUITE as NATURAL
from fastreg.evaluation.ood_features import SUITE as OOD_FEATURES
from fastreg.evaluation.ood_scores import SUITE as OOD_SCORES
from fastreg.evaluation.perturbation_suite import SUITES as PERTURBATION_SUITES
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Figure, Suite, SuitePlan


def _imagenet_c(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    folder, read = config.imagenet_c_dir, partial(published_sets.imagenet_c, resize=config.resize_official)
    names = {"suite": "imagenet-c", "other": "cifar-c"}
    return corruption_suite.build(eval_data, config, folder=folder, read=read, jpeg=True, **names)


def _cifar_c(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    folder, read = config.cifar_c_dir, published_sets.cifar_c
    names = {"suite": "cifar-c", "other": "imagenet-c"}
    return corruption_suite.build(eval_data, config, folder=folder, read=read, jpeg=False, **names)


def _average(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """The mean of the paper's table 4, for the paper's settings only."""
    columns = ("clean_error", "fgsm_error", "occlusion_error", "ce_noise", "ce_blur", "ce_weather", "ce_digital")
    if not all(column in found for column in columns):
        return {}
    if any(ROWS[name].altered(card, name) for name in ("fgsm", "imagenet-c")):
        return {}
    return {"average": sum(found[column] for column in columns) / len(columns)}


def _no_figures(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    return {}


KINDS = {"cifar10": "cifar", "cifar100": "cifar", "imagenet": "imagenet"}


def _paper(data: str, size: int) -> list[str]:
    """The suites that the paper reports for a data set. Arrays, folders and other sets of 32 px count as CIFAR."""
    kind = _kind(data, size)
    return [name for name, row in ROWS.items() if kind in row.paper]


def _kind(data: str, size: int) -> str:
    return KINDS.get(data, "cifar" if size == corruption_suite.CIFAR_SIZE else "imagenet")


def _full(data: str, size: int) -> list[str]:
    """All suites but those of the corruptions of another size, and those that must be named."""
    other = {name for name, row in ROWS.items() if row.severities and row.paper} - set(_paper(data, size))
    other |= {name for name, row in ROWS.items() if row.kinds and _kind(data, size) not in row.kinds}
    return [name for name, row in ROWS.items() if row.expands is None and not row.named_only and name not in other]


_CLEAN = ("clean",)
_TABLE = (
    Suite(
        "clean",
        "top-1 and top-5 error on the unchanged images",
        build_suite.clean,
        figures={
            "clean_error": Figure("Clean", "top-1 error", share=True),
            "top5_error": Figure("Top-5", "top-5 error", secondary=True, share=True),
        },
        summary=build_suite.clean_figures,
        paper=("imagenet", "cifar"),
    ),
    Suite(
        "fgsm",
        "one step of the sign of the gradient, epsilon 8/255 in pixel space",
        attack_suites.fgsm,
        figures={"fgsm_error": Figure("FGSM", "top-1 error after one gradient-sign step", share=True)},
        paper=("imagenet", "cifar"),
        altered=attack_suites.altered,
        notes=attack_suites.notes,
    ),
    Suite(
        "pgd",
        "ten projected steps from a random start, epsilon 8/255",
        attack_suites.pgd,
        figures={"pgd_error": Figure("PGD", "top-1 error after ten projected steps", share=True)},
        altered=attack_suites.altered,
        notes=partial(attack_suites.notes, weaker="fgsm"),
    ),
    Suite(
        "autoattack",
        "APGD-CE, APGD-T, FAB-T and Square, epsilon 8/255 (needs torchattacks)",
        attack_suites.autoattack,
        figures={"autoattack_error": Figure("AutoAttack", "top-1 error after AutoAttack", share=True)},
        named_only=True,
        altered=attack_suites.altered,
        notes=attack_suites.notes,
    ),
    Suite(
        "occlusion",
        "a black square at the center, side half the width",
        build_suite.occlusion,
        figures={
            "occlusion_error": Figure(
                "Occlusion", "top-1 error behind a black center square", share=True, on_sample=False
            )
        },
        paper=("imagenet", "cifar"),
        notes=build_suite.occlusion_notes,
    ),
    Suite(
        "imagenet-c",
        "15 corruptions at 5 severities with ImageNet-C's constants",
        _imagenet_c,
        figures={**corruption_suite.normalized_figures(), **corruption_suite.figures("imagenet-c", "ImageNet-C")},
        summary=corruption_suite.normalized_totals,
        paper=("imagenet",),
        severities=True,
        altered=partial(corruption_suite.altered, constants="imagenet224", imagenet=True),
        notes=corruption_suite.notes,
        tables=corruption_suite.tables,
    ),
    Suite(
        "cifar-c",
        "15 corruptions at 5 severities with CIFAR-C's constants",
        _cifar_c,
        figures=corruption_suite.figures("cifar-c", "CIFAR-C"),
        summary=corruption_suite.totals,
        paper=("cifar",),
        severities=True,
        altered=partial(corruption_suite.altered, constants="cifar32", imagenet=False),
        notes=corruption_suite.notes,
        tables=corruption_suite.tables,
    ),
    IMAGENET_C_BAR,
    *PERTURBATION_SUITES,
    NATURAL,
    Suite(
        "calibration",
        "ECE with 20 bins, Brier score and likelihood on the unchanged images",
        figures={
            "ece": Figure("ECE", "expected calibration error, 20 bins", of=_CLEAN),
            "brier": Figure("Brier", "Brier score summed over classes", of=_CLEAN, secondary=True),
            "nll": Figure("NLL", "negative log-likelihood", "nats", of=_CLEAN, secondary=True),
        },
        summary=_no_figures,  # the clean pass gives them
        needs_clean=True,
        paper=("cifar",),
    ),
    Suite(
        "confidence",
        "average top-1 probability on the unchanged images (Figure 1)",
        figures={
            "confidence": Figure("Confidence", "average top-1 probability", best="", of=_CLEAN, secondary=True),
        },
        summary=_no_figures,  # the clean pass gives it
        needs_clean=True,
        paper=("imagenet", "cifar"),
    ),
    Suite(
        "ood",
        "detection error of the largest softmax probability, mean over seven sets",
        ood.build,
        figures={
            "ood_mean": Figure(
                "OOD, partial", "out-of-distribution detection error, mean of the sets that the notes name"
            ),
            "ood_error": Figure("OOD", "out-of-distribution detection error, mean of the seven sets"),
        },
        summary=ood.mean_error,
        needs_clean=True,
        paper=("cifar",),
        altered=ood.altered,
        notes=ood.notes,
        tables=ood.tables,
    ),
    CALIBRATION_EXTENDED,
    OOD_SCORES,
    OOD_FEATURES,
    Suite(
        "paper",
        "everything that the paper reports for the data set",
        figures={
            "average": Figure(
                "Average",
                "mean of clean, FGSM, occlusion and four kinds of corruption",
                of=("clean", "fgsm", "occlusion", "imagenet-c"),
            ),
        },
        summary=_average,
        expands=_paper,
    ),
    Suite("full", "every suite that fits the size of the images", summary=_no_figures, expands=_full),
)
ROWS = {row.name: row for row in _TABLE}
SUITES = {name: row.about for name, row in ROWS.items()}
CORRUPTED = tuple(name for name, row in ROWS.items() if row.severities)


def resolve(suites: str | Iterable[str], size: int, data: str = "") -> list[str]:
    """Suite names in the order of the table, without repeats.

    Args:
        suites: one name, a list, or names joined by commas.
        size: side of the evaluated images in pixels.
        data: the data set's name, on which the suites of ``paper`` depend.

    Raises:
        InputError: an unknown name, or none.
    """
    names = suites.split(",") if isinstance(suites, str) else list(suites or ())
    if not names:
        raise InputError(f"no suite was named: known are {', '.join(ROWS)}.")
    wanted: set[str] = set()
    for name in (n.strip() for n in names):
        if name not in ROWS:
            raise unknown("suite", name, ROWS)
        expands = ROWS[name].expands
        wanted.update(expands(data, size) if expands else (name,))
    if any(ROWS[name].needs_clean for name in wanted):
        wanted.add("clean")
    return [name for name in ROWS if name in wanted]
