"""A suite as data: its row in the table of suites, the plan that it builds, and the conditions of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from fastreg.distributed import World
from fastreg.evaluation.conditions import Logits
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.pixel_cache import FloatPixels, Pixels
from fastreg.evaluation.scorecard_data import ScorecardData

Row = dict[str, Any]
Batches = Callable[[World, EvalConfig], Iterator[Pixels] | Iterator[FloatPixels]]
NONE: Mapping[str, Any] = MappingProxyType({})


class Condition(NamedTuple):
    """One pass over a set: the unit of resuming.

    Args:
        logits: batch to float32 logits [B, K].
        batches: this rank's batches; None: the data's own, from the pixel cache.
        n: number of images, where these are not the data's own.
        extra: goes into the row; ``fingerprint`` identifies the files that the condition reads.
        reference: ``compare`` gets its confidences; its row keeps the calibration bins.
        compare: makes the row of ``(reference confidences, own confidences, row)``.
        gradient: it needs the model's gradient by its input.
    """

    logits: Logits
    batches: Batches | None = None
    n: int | None = None
    extra: Mapping[str, Any] = NONE
    reference: bool = False
    compare: Callable[[Tensor, Tensor, Row], Row] | None = None
    gradient: bool = False


class SuitePlan(NamedTuple):
    """The settings of a suite, and its conditions by name."""

    settings: dict[str, Any]
    conditions: dict[str, Condition]


class Figure(NamedTuple):
    """A column of the score tables; its value is in ``Scorecard.summary()`` under the same key.

    Args:
        heading: of the column.
        about: the meaning, in a few words.
        unit: "%", "nats".
        best: "lowest", "highest", or "" for neither.
        of: the suites that it is computed from, where this is not its own suite alone.
        secondary: shown in the second table of a report.
        unless: not shown beside the figure of this key.
        share: a share of the data's n images, or a mean of such shares; printed with its binomial interval.
    """

    heading: str
    about: str
    unit: str = "%"
    best: str = "lowest"
    of: tuple[str, ...] = ()
    secondary: bool = False
    unless: str = ""
    share: bool = False

    @property
    def meaning(self) -> str:
        return f"{self.about}, {self.unit}"


class Table(NamedTuple):
    """Rows behind a suite's figures, for the terminal. Floats are printed with ``digits``, None as a dash."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]
    digits: int = 2


def condition_error(card: ScorecardData, suite: str, found: Mapping[str, float]) -> dict[str, float]:
    """The summary of a suite of one condition: ``<suite>_error``."""
    row = card.results(suite).get(suite)
    return {f"{suite.replace('-', '_')}_error": row["error"]} if row else {}


def nothing(card: ScorecardData, suite: str) -> list[Any]:
    return []


class Suite(NamedTuple):
    """A row of the table of suites.

    Args:
        name: as given to ``evaluate``.
        about: one line.
        build: the plan for a set, or InputError for what is missing or does not fit; None: a suite without conditions.
        figures: columns by summary key.
        summary: ``(card, suite, figures so far)`` to the suite's figures; those that are not complete are left out.
        needs_clean: the clean images are measured too.
        paper: kinds of data set ("imagenet", "cifar") for which the paper reports it.
        severities: conditions are ``<corruption>/<severity>``.
        expands: ``(data set's name, size)`` to the names of the suites that this one stands for.
        altered: how the settings depart from the paper's, one phrase each.
        notes: what a reader must know beside the figures, one sentence each.
        tables: rows behind the figures.
    """

    name: str
    about: str
    build: Callable[[EvalData, EvalConfig], SuitePlan] | None = None
    figures: Mapping[str, Figure] = NONE
    summary: Callable[[ScorecardData, str, Mapping[str, float]], dict[str, float]] = condition_error
    needs_clean: bool = False
    paper: tuple[str, ...] = ()
    severities: bool = False
    expands: Callable[[str, int], Sequence[str]] | None = None
    altered: Callable[[ScorecardData, str], list[str]] = nothing
    notes: Callable[[ScorecardData, str], list[str]] = nothing
    tables: Callable[[ScorecardData, str], list[Table]] = nothing
