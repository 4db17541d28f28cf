"""What a reader must know beside a card's figures, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastreg.evaluation.suites import CORRUPTED, OOD_IMAGES, OOD_SETS

if TYPE_CHECKING:
    from fastreg.evaluation.scorecard import Scorecard

EPSILON = 8 / 255  # the paper's, in pixel space
CONSTANTS = {"imagenet-c": "imagenet224", "cifar-c": "cifar32"}


def notes(card: Scorecard) -> list[str]:
    """Sample data, other decoding, partial and altered suites, outputs that were not finite."""
    said = []
    if card.sample:
        said.append("sample: measured on sample data; these figures say nothing about the full data set.")
    if card.decoding:
        said.append(f"images: {card.decoding}.")
    if published := card.provenance.get("published_with"):
        said.append(f"weights: published with {published}; measured as the paper measures, Resize 256/224, bilinear.")
    for suite in CORRUPTED:
        if card.results(suite) and (lacking := card.missing(suite)):
            said.append(f"{suite} is partial, so it has no total; missing: {', '.join(lacking)}.")
    for suite in card.suites:
        if how := altered(card, suite):
            said.append(f"{suite}: {how}.")
        if not card.complete(suite):
            left = len(set(card.suites[suite]["wanted"]) - set(card.results(suite)))
            said.append(f"{suite} was interrupted with {left} conditions left: run the same command to continue.")
        for condition, row in card.results(suite).items():
            if suite in CORRUPTED:
                said += _files(card, f"{suite} {condition}", row)
            said += _without_softmax(condition if condition == suite else f"{suite} {condition}", row)
    return said + _out_of_distribution(card)


def altered(card: Scorecard, suite: str) -> str:
    """How a suite's settings depart from the paper's, in words; empty when they don't."""
    settings = card.suites.get(suite, {}).get("settings", {})
    said = []
    if settings.get("epsilon", EPSILON) != EPSILON:
        said.append(f"epsilon {settings['epsilon']:.4g} instead of 8/255")
    if settings.get("clip") is False:
        said.append("pixels are not clipped to [0, 1]")
    if suite == "imagenet-c" and settings.get("fidelity") == "memory":
        said.append("fidelity memory, without the JPEG step of the distributed files, so noise is harder")
    if suite == "imagenet-c" and card.is_imagenet and card.data["size"] != 224:
        said.append(f"{card.data['size']} px, while AlexNet's errors are for 224 px")
    own = CONSTANTS.get(suite)
    if (card.is_imagenet or suite == "cifar-c") and settings.get("constants", own) != own:
        said.append(f"constants {settings['constants']} instead of {own}")
    if suite == "ood":
        held = {name: row["n"] + settings.get("first", 0) for name, row in card.ood_sets().items()}
        other = [f"{name} {n:,} of {OOD_IMAGES[name]:,}" for name, n in held.items() if n != OOD_IMAGES[name]]
        said += [f"images: {', '.join(other)}"] if other else []
    return "; ".join(said)


def _files(card: Scorecard, where: str, row: dict[str, Any]) -> list[str]:
    if row["n"] == card.data["n"] and not row.get("differs"):
        return []
    how = f" ({row['differs']})" if row.get("differs") else ""
    return [f"{where}: its files hold {row['n']:,} of {card.data['n']:,} images{how}."]


def _without_softmax(where: str, row: dict[str, Any]) -> list[str]:
    """What became of images whose logits have no softmax, or give their own class no chance."""
    said = []
    bad, detection = row.get("nonfinite", 0), "detection_error" in row
    if bad:
        counted = "scored 0, as the least familiar" if detection else "counted as errors"
        said.append(f"{where}: {bad:,} of {row['n']:,} images gave NaN logits, {counted}.")
    if lost := row.get("nonfinite_in"):
        said.append(f"{where}: {lost:,} of {row['n_in']:,} of the data's images gave NaN logits, scored 0.")
    if row["detection_error"] is None if detection else bad == row["n"]:
        what = "there is no detection" if detection else "there is no confidence and no calibration"
        said.append(f"{where}: no image gave logits with a softmax, so {what}.")
    if impossible := row.get("impossible"):
        said.append(f"{where}: {impossible:,} images gave their own class a logit of -inf, so there is no likelihood.")
    return said


def _out_of_distribution(card: Scorecard) -> list[str]:
    sets, said = card.ood_sets(), []
    missing = [name for name in OOD_SETS if name not in sets]
    if sets and missing:
        said.append(
            f"ood: the mean is of {len(sets)} of the paper's {len(OOD_SETS)} sets; missing: {', '.join(missing)}."
        )
    for name, row in card.results("ood").items():
        if row.get("stored_px", 0) > card.data["size"]:
            used = f"the centre {card.data['size']} px were used"
            said.append(f"ood {name}: of its images of {row['stored_px']} px {used}.")
    return said
