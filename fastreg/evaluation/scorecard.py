"""The result of an evaluation: settings and one row of figures per condition, totals computed from them.

``scorecard.json`` is written after every condition, so that a killed evaluation continues where it was. A suite's rows
are kept only while all they depend on (model, data, size, precision, seed, the suite's own settings) is the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastreg import metrics
from fastreg.errors import InputError
from fastreg.evaluation import notes
from fastreg.evaluation.pixel_cache import CROP_PCT
from fastreg.evaluation.suites import CORRUPTED, OOD_SETS, SEVERITIES
from fastreg.files import write_json

FORMAT = "fastreg-scorecard-1"


@dataclass
class Scorecard:
    model: dict[str, Any]  # name, digest, classes, mean, std
    data: dict[str, Any]  # name, split, n, classes, fingerprint, size, sample
    settings: dict[str, Any]  # precision, tf32, seed, loader
    suites: dict[str, dict[str, Any]] = field(default_factory=dict)  # settings, measured (when, where), wanted, results
    provenance: dict[str, Any] = field(default_factory=dict)
    format: str = FORMAT

    @property
    def sample(self) -> bool:
        """Whether the data is the small sample set, whose figures say nothing about the real one."""
        return bool(self.data["sample"])

    @property
    def is_imagenet(self) -> bool:
        """Whether AlexNet-normalised figures mean anything: 1000-class ImageNet, not sample data."""
        return self.data["name"] == "imagenet" and self.data["classes"] == 1000 and not self.sample

    @property
    def decoding(self) -> str:
        """How the images were decoded, where it was not by the published protocol; else empty."""
        loader, crop_pct = self.settings.get("loader", "folder"), self.data.get("crop_pct", CROP_PCT)
        said = [] if loader in ("folder", "resident") else [f"decoded by {loader}, to other pixels than Pillow's"]
        said += [] if crop_pct == CROP_PCT else [f"crop_pct {crop_pct:g} instead of {CROP_PCT:g}"]
        return "; ".join(said)

    def adopt(self, older: Scorecard | None) -> bool:
        """Take over the suites of an older card of the same model and data; says whether it could."""
        if older is None or any(getattr(self, key) != getattr(older, key) for key in ("model", "data", "settings")):
            return False
        self.suites = older.suites
        return True

    def begin(self, suite: str, settings: dict[str, Any], wanted: Mapping[str, str | None]) -> dict[str, Any]:
        """The rows of a suite so far, emptied when its settings changed.

        ``wanted``: the conditions of this call, each with the fingerprint of the files it reads (None: it reads none).
        A row that was measured on other files is dropped, alone.
        """
        known = self.suites.get(suite)
        if known is None or known["settings"] != settings:
            known = self.suites[suite] = {"settings": settings, "measured": {}, "wanted": [], "results": {}}
        known["wanted"] = list(dict.fromkeys([*known["wanted"], *wanted]))
        rows = known["results"]
        for condition, fingerprint in wanted.items():
            if condition in rows and rows[condition].get("fingerprint") != fingerprint:
                del rows[condition]
        return rows

    def results(self, suite: str) -> dict[str, dict[str, Any]]:
        return self.suites.get(suite, {}).get("results", {})

    def complete(self, suite: str) -> bool:
        """Whether every condition that was asked for has its row."""
        return suite in self.suites and set(self.suites[suite]["wanted"]) <= set(self.results(suite))

    def severity_errors(self, suite: str) -> dict[str, dict[int, float]]:
        """Top-1 error in percent by corruption and severity, as far as evaluated."""
        table: dict[str, dict[int, float]] = {}
        for condition, row in self.results(suite).items():
            name, severity = condition.split("/")
            table.setdefault(name, {})[int(severity)] = row["error"]
        return table

    def missing(self, suite: str) -> list[str]:
        """What keeps a corruption suite from having a total: corruptions, and single severities of begun ones.

        A condition over other images than the data's, as half an archive gives, counts as missing.
        """
        rows = self.results(suite)
        whole = {key for key, row in rows.items() if row["n"] == self.data["n"] and not row.get("differs")}
        lacking = []
        for name in metrics.missing_corruptions(()):
            severities = [s for s in SEVERITIES if f"{name}/{s}" not in whole]
            if severities:
                lacking.append(name if len(severities) == 5 else f"{name} {','.join(map(str, severities))}")
        return lacking

    def ood_sets(self) -> dict[str, dict[str, Any]]:
        """The rows of the paper's out-of-distribution sets, as far as they are there."""
        rows = self.results("ood")
        return {n: rows[n] for n in OOD_SETS if rows.get(n, {}).get("detection_error") is not None}

    def summary(self) -> dict[str, Any]:
        """The figures the paper's tables print, in percent; only those that are complete."""
        found: dict[str, Any] = {}
        if row := self.results("clean").get("clean"):
            found |= {"clean_error": row["error"], "top5_error": row["top5_error"]}
            found |= {key: row[key] for key in ("nll", "ece", "brier", "confidence") if row[key] is not None}
        for suite in ("fgsm", "pgd", "occlusion"):
            if row := self.results(suite).get(suite):
                found[f"{suite}_error"] = row["error"]
        for suite in CORRUPTED:
            if self.results(suite) and not self.missing(suite):
                found |= self._corruption_totals(suite, found.get("clean_error"))
        if sets := self.ood_sets():  # sets of one's own have rows but are in no mean
            key = "ood_error" if len(sets) == len(OOD_SETS) else "ood_mean"
            found[key] = sum(row["detection_error"] for row in sets.values()) / len(sets)
        columns = ("clean_error", "fgsm_error", "occlusion_error", "ce_noise", "ce_blur", "ce_weather", "ce_digital")
        altered = any(self.altered(suite) for suite in ("fgsm", "imagenet-c"))  # Table 4's mean is of the paper's own
        if all(column in found for column in columns) and not altered:
            found["average"] = sum(found[column] for column in columns) / len(columns)
        return found

    def _corruption_totals(self, suite: str, clean_error: float | None) -> dict[str, float]:
        table = self.severity_errors(suite)
        errors = {n: [table[n][s] / 100 for s in SEVERITIES] for n in metrics.missing_corruptions(())}
        key = suite.replace("-", "_")
        found = {f"{key}_error": metrics.mean_error(errors)}
        found |= {f"{key}_{category}": error for category, error in metrics.category_errors(errors).items()}
        if suite == "imagenet-c" and self.is_imagenet:
            found["mce"] = metrics.mean_corruption_error(errors)
            if clean_error is not None:
                found["relative_mce"] = metrics.relative_mean_corruption_error(errors, clean_error / 100)
            categories = metrics.category_corruption_errors(errors)
            found |= {f"ce_{category}": error for category, error in categories.items()}
        return found

    def altered(self, suite: str) -> str:
        """How a suite's settings depart from the paper's, in words; empty when they don't."""
        return notes.altered(self, suite)

    def notes(self) -> list[str]:
        """What a reader must know beside the figures: sample data, partial suites, outputs that were not finite."""
        return notes.notes(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold: what is not finite is None."""
        plain = asdict(self)
        return _finite({"format": plain.pop("format"), "summary": self.summary(), "notes": self.notes(), **plain})

    def save(self, path: Path | str) -> None:
        """Write as JSON, whole or not at all. Raises RunError when it cannot."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> Scorecard:
        """Read scorecard.json. Raises InputError when it is not one."""
        try:
            content = json.loads(Path(path).read_text())
        except FileNotFoundError:
            raise InputError(f"no scorecard at {path}: run `fastreg eval` on that run first.") from None
        except (ValueError, OSError) as error:
            raise InputError(f"{path} is not a scorecard ({error}): move it away and evaluate again.") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{path} is not a scorecard of this version: move it away and evaluate again.")
        try:
            card = cls(**{key: content[key] for key in cls.__dataclass_fields__})
        except KeyError as error:
            raise InputError(f"{path} lacks {error}: move it away and evaluate again.") from error
        try:
            card.to_dict()  # whatever is not where it should be is missed here, not by a reader later
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise InputError(f"{path} is not a scorecard ({why}): move it away and evaluate again.") from error
        return card


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
