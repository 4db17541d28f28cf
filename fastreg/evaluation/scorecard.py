"""The result of an evaluation: the rows of ``scorecard_data.py``, and the totals and notes computed from them.

``scorecard.json`` is written after every condition, so that a killed evaluation continues there. The rows of a suite
are kept only while the model, the data, the size, the precision, the seed and the suite's own settings are the same.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastreg.errors import InputError
from fastreg.evaluation.scorecard_data import FORMAT, ScorecardData
from fastreg.evaluation.suites import ROWS
from fastreg.files import read_json, write_json
from fastreg.pipelines.source import same_data


@dataclass
class Scorecard(ScorecardData):
    """The figures of one model on one data set; in percent, but for likelihoods.

    ``summary()`` returns the totals, ``results(suite)`` their rows, ``notes()`` the warnings to read with them.
    ``save`` and ``load`` write and read scorecard.json.

    Args:
        model: name, digest, mean, std.
        data: name, split, n, classes, fingerprint, size, crop_pct, sample.
        settings: precision, tf32, seed, loader.
        suites: rows by suite and condition, with their settings.
        provenance: versions, hardware, and how the model was trained.
        format: version of the file format.
    """

    def adopt(self, older: Scorecard | None) -> bool:
        """Take over the suites of an older card. Returns False if its model, data or settings differ."""
        if older is None or any(getattr(self, key) != getattr(older, key) for key in ("model", "settings")):
            return False
        mine, theirs = ({**card.data, "fingerprint": ""} for card in (self, older))
        if mine != theirs or not same_data(str(self.data["fingerprint"]), str(older.data["fingerprint"])):
            return False
        self.suites = older.suites
        return True

    def summary(self) -> dict[str, Any]:
        """The complete figures of the paper's tables, by key."""
        found: dict[str, Any] = {}
        for name, row in ROWS.items():
            found |= row.summary(self, name, found)
        return found

    def altered(self, suite: str) -> str:
        """The departures of a suite's settings from the paper's; empty if there are none."""
        return "; ".join(ROWS[suite].altered(self, suite)) if suite in ROWS else ""

    def notes(self) -> list[str]:
        """Warnings about the figures, one sentence each."""
        messages = []
        if self.sample:
            messages.append("sample: measured on sample data; these figures do not hold for the full data set.")
        if self.decoding:
            messages.append(f"images: {self.decoding}.")
        if self.settings.get("precision") in ("bf16", "fp16"):
            messages.append(f"precision: measured in {self.settings['precision']}; published figures are of float32.")
        if published := self.provenance.get("published_with"):
            how = {"published": "and measured so, while the paper measures with Resize 256/224, bilinear"}.get(
                self.provenance.get("protocol", ""), "measured as the paper measures, Resize 256/224, bilinear"
            )
            if other := self.provenance.get("measured_with"):
                how = f"measured with {other}"
            messages.append(f"weights: published with {published}; {how}.")
        outputs, classes = self.provenance.get("outputs", 0), self.data["classes"]
        if outputs > classes:
            every = self.settings.get("classes") == "all"
            how = f"all {outputs:,} outputs compete" if every else "only their outputs compete (`scored_classes`)"
            messages.append(f"classes: the data has {classes:,} of the model's {outputs:,}; {how}.")
        messages += [f"model: {note}" for note in self.provenance.get("model_notes", ())]
        if taken := self.provenance.get("weights_note"):
            messages.append(f"weights: {taken}.")
        for suite in self.suites:
            if suite in ROWS:
                messages += ROWS[suite].notes(self, suite)
            if how := self.altered(suite):
                messages.append(f"{suite}: {how}.")
            if not self.complete(suite):
                left = len(set(self.suites[suite]["wanted"]) - set(self.results(suite)))
                messages.append(
                    f"{suite} was interrupted with {left} conditions left: run the same command to continue."
                )
            for condition, row in self.results(suite).items():
                messages += _without_softmax(condition if condition == suite else f"{suite} {condition}", row)
        return messages

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers that are not finite are None."""
        plain = asdict(self)
        return _finite({"format": plain.pop("format"), "summary": self.summary(), "notes": self.notes(), **plain})

    def save(self, path: Path | str) -> None:
        """Write the card as JSON, atomically. Raises RunError if it cannot be written."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> Scorecard:
        """Read scorecard.json. Raises InputError if the file is not a scorecard."""
        try:
            content = read_json(path)
        except FileNotFoundError:
            raise InputError(f"no scorecard at {path}: run `fastreg eval` on that run first.") from None
        except (ValueError, OSError, RecursionError) as error:
            raise InputError(f"{path} is not a scorecard ({error}): move it away and evaluate again.") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{path} is not a scorecard of this version: move it away and evaluate again.")
        try:
            card = cls(**{key: content[key] for key in cls.__dataclass_fields__})
        except KeyError as error:
            raise InputError(f"{path} lacks {error}: move it away and evaluate again.") from error
        try:
            card.to_dict()  # a missing or misplaced value raises here, not later in a report
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            why = f"{type(error).__name__}: {error}"
            raise InputError(f"{path} is not a scorecard ({why}): move it away and evaluate again.") from error
        return card


def _without_softmax(where: str, row: dict[str, Any]) -> list[str]:
    """Notes about images whose logits have no softmax, or give their label the probability 0."""
    messages = []
    bad, detection = row.get("nonfinite", 0), "detection_error" in row
    if bad:
        counted = "scored 0, as the least familiar" if detection else "counted as errors"
        messages.append(f"{where}: {bad:,} of {row['n']:,} images gave NaN logits, {counted}.")
    if lost := row.get("nonfinite_in"):
        messages.append(f"{where}: {lost:,} of {row['n_in']:,} of the data's images gave NaN logits, scored 0.")
    if row["detection_error"] is None if detection else bad == row["n"]:
        what = "there is no detection" if detection else "there is no confidence and no calibration"
        messages.append(f"{where}: no image gave logits with a softmax, so {what}.")
    if impossible := row.get("impossible"):
        messages.append(
            f"{where}: {impossible:,} images gave their own class a logit of -inf, so there is no likelihood."
        )
    return messages


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
