"""The types of a suite: its row in the table of suites, the plan that it builds, and the conditions of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.conditions import Logits
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.pixel_cache import FloatPixels, Pixels
from fastreg.evaluation.scorecard_data import ScorecardData

Row = dict[str, Any]
Batches = Callable[[World, EvalConfig], Iterator[Pixels] | Iterator[FloatPixels]]
NONE: Mapping[str, Any] = MappingProxyType({})


class NoCorruption(InputError):
    """A suite has none of the corruptions asked for: another suite may."""

    def __init__(self, suite: str, asked: str | Iterable[str] | None, known: Iterable[str]) -> None:
        names = asked if isinstance(asked, str) else ",".join(asked or ())
        super().__init__(f"`corruptions` {names}: none is of {suite}; give {', '.join(known)}.")


class LeftOut(InputError):
    """A suite cannot be measured with this model or these data: ``full`` leaves it out."""


class Condition(NamedTuple):
    """One pass over a set. An interrupted evaluation continues with the next condition.

    Args:
        logits: function from a batch to float32 logits [B, K].
        batches: this rank's batches; None: those of the data, from the pixel cache.
        n: number of images, if they are not those of the data.
        extra: further values of the row; ``fingerprint`` identifies the files that the condition reads.
        reference: whether ``compare`` of other conditions gets the values.
        bins: whether the row keeps the calibration bins.
        counts: further counts of the row, each as a function that returns this rank's; 0 leaves it out.
        collect: function from ``(logits, labels)`` to the values of each image, [B, ...]; None: its confidence.
        compare: function from ``(reference values, own values, row)`` to the row; the reference is that of the
            suite, if it has one.
        gradient: whether the condition needs the model's gradient by its input.
        finish: called on rank 0 when the row is saved.
        row: function from ``(row of the logits, world)`` to the row, called on all ranks; None: that row.
        names: the names of its classes, if they are not the data's; its errors per class are then in files of its own.
        prepare: called on every rank before the pass, with ``(classifier, world, config)``.
    """

    logits: Logits
    batches: Batches | None = None
    n: int | None = None
    extra: Mapping[str, Any] = NONE
    reference: bool = False
    compare: Callable[[Tensor, Tensor, Row], Row] | None = None
    gradient: bool = False
    bins: bool = False
    counts: Mapping[str, Callable[[], Tensor | int]] = NONE
    collect: Callable[[Tensor, Tensor], Tensor] | None = None
    finish: Callable[[], None] | None = None
    row: Callable[[Row, World], Row] | None = None
    names: Sequence[str] | None = None
    prepare: Callable[[Classifier, World, EvalConfig], None] | None = None


class SuitePlan(NamedTuple):
    """The settings of a suite, and its conditions by name."""

    settings: dict[str, Any]
    conditions: dict[str, Condition]


class Figure(NamedTuple):
    """A column of the score tables; its value is in ``Scorecard.summary()`` under the same key.

    Args:
        heading: heading of the column.
        about: the meaning, in a few words.
        unit: "%", "nats".
        best: "lowest", "highest", or "" for neither.
        of: the suites that it is computed from, if not its own suite alone.
        secondary: whether the second table of a report shows it.
        unless: key of a figure; not shown if that figure is present.
        share: whether it is a share of the data's n images, or a mean of such shares; its binomial interval is printed.
        images_of: suite and condition whose images it is a share of, if they are not the data's.
        on_sample: whether it can be judged on sample data.
    """

    heading: str
    about: str
    unit: str = "%"
    best: str = "lowest"
    of: tuple[str, ...] = ()
    secondary: bool = False
    unless: str = ""
    share: bool = False
    images_of: tuple[str, str] | None = None
    on_sample: bool = True

    @property
    def meaning(self) -> str:
        return f"{self.about}, {self.unit}"


class Table(NamedTuple):
    """The detailed rows of a suite, for the terminal. Floats are printed with ``digits``, None as a dash."""

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
        name: name, as given to ``evaluate``.
        about: description in one line.
        build: returns the plan for a set, or raises InputError for missing or unfit data; None: no own conditions.
        figures: columns by summary key.
        summary: function from ``(card, suite, figures so far)`` to the suite's complete figures.
        fitted: whether it is fitted to training images (``fit_data``), which ``fastreg eval`` then opens.
        needs_clean: whether the clean images are measured too.
        paper: kinds of data set ("imagenet", "cifar") for which the paper reports it.
        severities: whether conditions are named ``<corruption>/<severity>``.
        kinds: kinds of data set for which ``full`` has it; empty: all.
        named_only: whether ``full`` leaves it out: it takes days on a whole set, or needs another package.
        expands: function from ``(data set's name, size)`` to the names of the suites that this one stands for.
        altered: departures of the settings from the paper's, one phrase each.
        notes: warnings about the figures, one sentence each.
        tables: detailed rows.
        write: writes further files into the folder of the card, given as its third argument.
    """

    name: str
    about: str
    build: Callable[[EvalData, EvalConfig], SuitePlan] | None = None
    figures: Mapping[str, Figure] = NONE
    summary: Callable[[ScorecardData, str, Mapping[str, float]], dict[str, float]] = condition_error
    fitted: bool = False
    needs_clean: bool = False
    paper: tuple[str, ...] = ()
    severities: bool = False
    kinds: tuple[str, ...] = ()
    named_only: bool = False
    expands: Callable[[str, int], Sequence[str]] | None = None
    altered: Callable[[ScorecardData, str], list[str]] = nothing
    notes: Callable[[ScorecardData, str], list[str]] = nothing
    tables: Callable[[ScorecardData, str], list[Table]] = nothing
    write: Callable[[ScorecardData, str, Path], None] | None = None
