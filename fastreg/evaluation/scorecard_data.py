"""The data of a scorecard: settings, and one row of figures per condition. The functions of a suite read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastreg.evaluation.conditions import SEVERITIES
from fastreg.evaluation.config import CROP_PCT, INTERPOLATION, PROTOCOL
from fastreg.metrics import missing_corruptions

FORMAT = "fastreg-scorecard-1"


@dataclass
class ScorecardData:
    """The rows by suite and condition, and their settings.

    Args:
        model: name, digest, mean, std.
        data: name, split, n, classes, fingerprint, size, crop_pct, interpolation (if not bilinear), sample.
        settings: precision, tf32, seed, loader.
        suites: by name: ``settings``, ``measured`` (when and where), ``wanted`` (conditions asked for), ``results``.
        provenance: versions, hardware, and how the model was trained.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    suites: dict[str, dict[str, Any]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    format: str = FORMAT

    @property
    def sample(self) -> bool:
        """Whether the data is the small sample set, whose figures do not hold for the full set."""
        return bool(self.data["sample"])

    @property
    def is_imagenet(self) -> bool:
        """Whether AlexNet-normalized figures are defined: 1000-class ImageNet that is not sample data."""
        return self.data["name"] == "imagenet" and self.data["classes"] == 1000 and not self.sample

    @property
    def decoding(self) -> str:
        """Departures of the decoding from the published protocol; empty if there are none."""
        loader, crop_pct = self.settings.get("loader", PROTOCOL), self.data.get("crop_pct", CROP_PCT)
        messages = [] if loader in (PROTOCOL, "resident") else [f"decoded by {loader}, to other pixels than Pillow's"]
        messages += [] if crop_pct == CROP_PCT else [f"crop_pct {crop_pct:g} instead of {CROP_PCT:g}"]
        if (interpolation := self.data.get("interpolation", INTERPOLATION)) != INTERPOLATION:
            messages.append(f"{interpolation} instead of {INTERPOLATION}")
        return "; ".join(messages)

    @property
    def measuring(self) -> str:
        """Departures of all figures from the published protocol, in decoding and precision; empty if there are none."""
        precision = self.settings.get("precision", "fp32")
        messages = [] if precision in ("fp32", "fp64") else [f"precision {precision} instead of fp32"]
        return "; ".join([self.decoding] * bool(self.decoding) + messages)

    def begin(self, suite: str, settings: dict[str, Any], wanted: Mapping[str, str | None]) -> dict[str, Any]:
        """Start or continue a suite.

        Args:
            suite: its name.
            settings: rows measured with other settings are dropped.
            wanted: the conditions of this call, each with the fingerprint of the files that it reads (None: no files).
                A row measured on other files is dropped.

        Returns:
            The suite's rows, to which the caller adds.
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
        """The rows of a suite by condition; empty if it was not measured."""
        return self.suites.get(suite, {}).get("results", {})

    def suite_settings(self, suite: str) -> dict[str, Any]:
        """The settings of a suite; empty if it was not measured."""
        return self.suites.get(suite, {}).get("settings", {})

    def complete(self, suite: str) -> bool:
        """Whether every requested condition has its row."""
        return suite in self.suites and set(self.suites[suite]["wanted"]) <= set(self.results(suite))

    def severity_errors(self, suite: str) -> dict[str, dict[int, float]]:
        """Top-1 error in percent by corruption and severity, as far as measured."""
        table: dict[str, dict[int, float]] = {}
        for condition, row in self.results(suite).items():
            name, severity = condition.split("/")
            table.setdefault(name, {})[int(severity)] = row["error"]
        return table

    def severity_ece(self, suite: str) -> dict[int, float]:
        """Expected calibration error in percent by severity: the mean over the corruptions, if all have it."""
        found: dict[int, list[float | None]] = {}
        for condition, row in self.results(suite).items():
            found.setdefault(int(condition.split("/")[1]), []).append(row.get("ece"))
        means = {}
        for severity, values in sorted(found.items()):
            known = [value for value in values if value is not None]
            if len(known) == len(values):
                means[severity] = sum(known) / len(known)
        return means

    def missing(self, suite: str) -> list[str]:
        """The corruptions that a suite lacks for its total, and single severities of incomplete corruptions.

        A condition over other images than the data's, such as those of half an archive, counts as missing.
        """
        rows = self.results(suite)
        whole = {key for key, row in rows.items() if row["n"] == self.data["n"] and not row.get("differs")}
        lacking = []
        for name in missing_corruptions(()):
            severities = [s for s in SEVERITIES if f"{name}/{s}" not in whole]
            if severities:
                lacking.append(name if len(severities) == 5 else f"{name} {','.join(map(str, severities))}")
        return lacking
