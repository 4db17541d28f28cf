"""Out-of-distribution detection by eleven scores, on the sets of OpenOOD 1.5, those of ``ood`` and the user's own.

All scores but ODIN's come from one forward pass: four from the logits, six from the input of the last linear layer,
fitted to features of training images. Near and far are means over the complete groups of OpenOOD. Hyperparameters are
OpenOOD's defaults, or chosen on a validation set that is never scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fastreg.errors import InputError, unknown
from fastreg.evaluation import ood, ood_scores, openood
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.features import fit_rows, held_out, source_batches
from fastreg.evaluation.ood_scorer import FITTED, SCORES, Scorer
from fastreg.evaluation.ood_sets import BENCHMARKS, Found, ImageFiles, benchmark_of, find_sets, image_files, read_list
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Condition, Figure, Row, Suite, SuitePlan, Table

NAME = "ood-features"
INSIDE = ood_scores.INSIDE
GROUPS = ("near", "far")
FIGURES = {
    f"ood_{group}_{score}_auroc": Figure(
        f"{group} {heading}",
        f"AUROC of the score {score}, mean of OpenOOD's {group} sets",
        best="highest",
        secondary=True,
    )
    for group in GROUPS
    for score, heading in SCORES.items()
}


def build(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """A condition for the data's own images, and one for each set found.

    Raises InputError for an unknown score, a folder without images, training images that do not fit the data, or scores
    from features without training images.
    """
    wanted = _wanted(config.ood_scores)
    if config.feature_layer is not None and not set(wanted) & set(FITTED):
        raise InputError(
            f"`feature_layer` {config.feature_layer} is for scores from features, and `ood_scores` is "
            f"{', '.join(wanted)}: leave it out."
        )
    rows = fit_rows(config, eval_data)
    if rows is None and config.ood_scores is not None and (fitted := [one for one in wanted if one in FITTED]):
        raise InputError(f"`ood_scores` {', '.join(fitted)} are fitted to training images: give them as `fit_data`.")
    if rows is not None and rows.labels.max() >= eval_data.classes:
        raise InputError(f"`fit_data` has class {rows.labels.max()}, but the model has {eval_data.classes} classes.")
    validation = _validation(eval_data, config)
    sets = find_sets(eval_data, config.ood_dir, validation.paths if validation is not None else ())
    papers = {place for places in ood.IMAGE_SETS.values() for place in places}
    sets = [one for one in sets if Path(one.source.root).name not in papers]  # they have conditions of their own
    apart = held_out(config, len(eval_data)) if validation is not None else None
    scorer = Scorer(eval_data, wanted, rows, validation, apart)
    compare = partial(_figures, scorer=scorer)
    shared: dict[str, Any] = {"prepare": scorer.prepare, "collect": scorer.collect}
    found = {INSIDE: Condition(scorer.logits, reference=True, extra=scorer.facts, **shared)}
    for one in sets:
        if one.name in found or one.name in ood.OOD_SETS:
            raise InputError(f"{one.source.root} has the name {one.name}, which another set has: rename it.")
        extra: dict[str, Any] = {"folder": str(one.source.root), "fingerprint": one.source.fingerprint}
        extra |= {"group": one.of.group, "published": one.of.images, "by_list": one.by_list} if one.of else {}
        batches = partial(_batches, one, eval_data)
        found[one.name] = Condition(scorer.logits, batches, len(one.source), extra, compare=compare, **shared)
    for name, condition in ood.paper_conditions(eval_data, config).items():
        found[name] = condition._replace(logits=scorer.logits, compare=compare, **shared)
    settings: dict[str, Any] = {"scores": wanted if config.ood_scores is not None else "all"}
    settings |= {"benchmark": benchmark_of(eval_data), "fit": rows.settings(config.seed) if rows is not None else None}
    if config.feature_layer is not None:
        settings["feature_layer"] = config.feature_layer
    if validation is not None and apart is not None:
        settings["validation"] = {"images": validation.fingerprint, "images_in": len(apart)}
    return SuitePlan(settings, found)


def _wanted(given: Any) -> list[str]:
    names = given.split(",") if isinstance(given, str) else list(given if given is not None else SCORES)
    names = [name.strip() for name in names]
    for name in names:
        if name not in SCORES:
            raise unknown("`ood_scores`", name, SCORES)
    if not names:
        raise InputError(f"`ood_scores` is empty: give some of {', '.join(SCORES)}.")
    return [name for name in SCORES if name in names]


def _validation(eval_data: EvalData, config: EvalConfig) -> ImageFiles | None:
    """The images that hyperparameters are chosen on."""
    if config.ood_val_dir is None:
        return None
    path = Path(config.ood_val_dir)
    files = read_list(path) if path.is_file() else image_files(path)
    if not files:
        raise InputError(f"`ood_val_dir` {path} has no images: give a folder of images, or one of OpenOOD's lists.")
    if len(eval_data) < 2:
        raise InputError("`ood_val_dir` needs two images of the data or more: one is for validation.")
    return ImageFiles("validation", path.parent if path.is_file() else path, files, eval_data)


def _batches(found: Found, like: EvalData, world: Any, config: EvalConfig) -> Any:
    return source_batches(found.source, like, world, config)


def _figures(inside: Tensor, outside: Tensor, row: Row, *, scorer: Scorer) -> Row:
    """The row of one set. For each score, images whose score is NaN are left out and counted."""
    inside = inside if scorer.apart is None else inside[scorer.scored]
    found: dict[str, Any] = {}
    for i, name in enumerate(scorer.names):
        own, other = (values[:, i][~values[:, i].isnan()] for values in (inside, outside))
        if not len(own) or not len(other):
            found[name] = dict.fromkeys((*ood_scores.MEASURES, "openood"))
            continue
        found[name] = {key: measure(own, other) for key, measure in ood_scores.MEASURES.items()}
        found[name]["openood"] = openood.measures(own, other)
        if lost := len(inside) - len(own):
            found[name]["left_out_in"] = lost
        if lost := len(outside) - len(other):
            found[name]["left_out"] = lost
    return {"n": row["n"], "n_in": len(inside), "nonfinite": row["nonfinite"], "scores": found}


def _groups(card: ScorecardData, suite: str) -> dict[str, list[str]]:
    """The names of the near and the far sets of the data's benchmark."""
    rows = BENCHMARKS.get(card.suite_settings(suite).get("benchmark", ""), ())
    return {group: [one.name for one in rows if one.group == group] for group in GROUPS}


def _values(card: ScorecardData, suite: str, score: str, key: str) -> dict[str, Any]:
    """A measure of a score by set, of the sets that have it."""
    rows = card.results(suite)
    found = {name: row["scores"][score][key] for name, row in rows.items() if score in row.get("scores", {})}
    return {name: value for name, value in found.items() if value is not None}


def _mean(card: ScorecardData, suite: str, score: str, key: str, sets: Sequence[str]) -> float | None:
    """The mean over the sets of a group; None unless all of them are measured."""
    found = _values(card, suite, score, key)
    return sum(found[name] for name in sets) / len(sets) if sets and set(sets) <= set(found) else None


def summary(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """The means over complete groups."""
    groups = _groups(card, suite)
    means = {
        f"ood_{group}_{score}_auroc": _mean(card, suite, score, "auroc", groups[group])
        for group in GROUPS
        for score in SCORES
    }
    return {key: value for key, value in means.items() if value is not None}


def altered(card: ScorecardData, suite: str) -> list[str]:
    """Sets of a group with another number of images than OpenOOD's."""
    rows = {name: row for name, row in card.results(suite).items() if row.get("group")}
    other = [f"{n} {r['n']:,} of {r['published']:,}" for n, r in rows.items() if r["n"] != r["published"]]
    return [f"images: {', '.join(other)}"] if other else []


def notes(card: ScorecardData, suite: str) -> list[str]:
    """The sets that a group lacks, the training images, the scores that are left out, and chosen hyperparameters."""
    results, settings, messages = card.results(suite), card.suite_settings(suite), []
    if len(results) < 2:
        return []
    for group, sets in _groups(card, suite).items():
        if missing := [name for name in sets if name not in results]:
            messages.append(
                f"{suite}: there is no mean of the {group} sets: {', '.join(missing)} missing; `fastreg data info ood` "
                f"lists their addresses."
            )
    if fit := settings.get("fit"):
        least, most = fit["per_class"]
        per_class = f"{least}" if least == most else f"{least} to {most}"
        messages.append(
            f"{suite}: scores from features are fitted to {fit['images']:,} of {fit['of']:,} training images, "
            f"{per_class} of each class, seed {fit['seed']}."
        )
    inside = results.get(INSIDE, {})
    for reason, names in _by_reason(inside.get("left_out_scores", {})).items():
        messages.append(f"{suite}: {', '.join(names)} left out: {reason}.")
    if "validation" in settings:
        chosen = ", ".join(f"{one} {_text(values)}" for one, values in inside.get("parameters", {}).items())
        messages.append(
            f"{suite}: chosen on the validation set and {settings['validation']['images_in']:,} images of the data, "
            f"which are not scored: {chosen}."
        )
    lost: dict[str, int] = {}
    for row in results.values():
        for score, measured in row.get("scores", {}).items():
            lost[score] = max(lost.get(score, 0), measured.get("left_out", 0), measured.get("left_out_in", 0))
    if some := [f"{score} {count:,}" for score, count in lost.items() if count]:
        messages.append(f"{suite}: images whose score is NaN are left out; the most in any set: {', '.join(some)}.")
    return messages


def _text(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key} {value:g}" for key, value in values.items())


def _by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        found.setdefault(reason.rstrip("."), []).append(name)
    return found


def tables(card: ScorecardData, suite: str) -> list[Table]:
    """The means of complete groups by score, and every measure by set and score."""
    rows, groups = card.results(suite), _groups(card, suite)
    found: list[Table] = []
    for group, sets in groups.items():
        means = [(SCORES[s], [_mean(card, suite, s, key, sets) for key in ood_scores.MEASURES]) for s in SCORES]
        if lines := [[heading, *values] for heading, values in means if None not in values]:
            title = f"{suite}: mean of the {group} sets ({', '.join(sets)}), in percent"
            found.append(Table(title, ["score", *ood_scores.HEADINGS], lines))
    order = [name for sets in groups.values() for name in sets if name in rows]
    each: list[list[Any]] = [
        [name, SCORES[score], *(measured[key] for key in ood_scores.MEASURES)]
        for name in [*order, *(name for name in rows if name not in order)]
        for score, measured in rows[name].get("scores", {}).items()
    ]
    title = f"{suite}: telling each set from the data, in percent"
    return [*found, Table(title, ["set", "score", *ood_scores.HEADINGS], each)] if each else []


def write(card: ScorecardData, suite: str, folder: Path) -> None:
    """OpenOOD's CSV files, one per score."""
    error = card.results(suite).get(INSIDE, {}).get("error")
    accuracy = 100 - error if error is not None else None
    for score, heading in SCORES.items():
        found = _values(card, suite, score, "openood")
        openood.write_csv(folder, ood_csv_name(score, heading), _groups(card, suite), found, accuracy)


def ood_csv_name(score: str, heading: str) -> str:
    """OpenOOD's name of a score; its own name if OpenOOD has none."""
    return score if score == "entropy" else heading.lower()


SUITE = Suite(
    NAME,
    "near and far sets of OpenOOD 1.5 and the user's own, by eleven scores of logits, features and ODIN",
    build,
    figures=FIGURES,
    summary=summary,
    fitted=True,
    altered=altered,
    notes=notes,
    tables=tables,
    write=write,
)
