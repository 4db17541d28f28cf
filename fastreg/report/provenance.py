"""The provenance of a run's figures as text, for HTML, Markdown and CSV."""

from __future__ import annotations

from typing import Any

from fastreg.evaluation.suites import CORRUPTED
from fastreg.report.run_folder import Run

FACTS = ("data", "split", "size", "fidelity", "precision", "seed", "loader", "fastreg", "torch", "gpu", "date", "notes")


def provenance(run: Run) -> list[tuple[str, str]]:
    """Model, data, settings, versions and hardware of a run, as (name, value)."""
    card = run.card
    suites = {s: {**entry["settings"], **entry.get("measured", {})} for s, entry in card.suites.items()}
    known = {"model": card.model, "data": card.data, **card.settings, **suites, **card.provenance}
    return [(key, _plain(value)) for key, value in known.items() if value != {}]


def facts(run: Run) -> dict[str, Any]:
    """The provenance columns of a CSV row, by ``FACTS``."""
    card = run.card
    packages = card.provenance.get("packages") or {}
    used = {s: card.suites[s]["settings"].get("fidelity") for s in CORRUPTED if s in card.suites}
    return {
        "data": card.data["name"],
        "split": card.data["split"],
        "size": card.data["size"],
        "fidelity": _plain(used),
        **{key: card.settings.get(key) for key in ("precision", "seed", "loader")},
        **{key: packages.get(key) for key in ("fastreg", "torch")},
        **{key: card.provenance.get(key) for key in ("gpu", "date")},
        "notes": " ".join(card.notes()),
    }


def _plain(value: Any) -> str:
    """A value as text: ``torch 2.13.0; gpu none``."""
    if isinstance(value, dict):
        return "; ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_plain(inner) for inner in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return str(value)
