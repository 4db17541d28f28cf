"""Errors per class and the confusion of classes, as CSV files beside scorecard.json.

``per_class.csv`` has a row per class: its name, its images, and a column of misclassified images per condition.
``confusion.csv`` has a row per pair of classes that occurs on the clean images: true class, predicted class, images. An
interrupted evaluation continues both. A set with classes of its own, such as ImageNet-A, has files of its own:
``per_class-imagenet-a.csv``, ``confusion-imagenet-a.csv``.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.files import atomic_write

PER_CLASS, CONFUSION = "per_class.csv", "confusion.csv"
NO_CLASS = -1  # the prediction for an image without a softmax


def label_and_class(labels: Tensor, logits: Tensor, confidence: Tensor) -> Tensor:
    """Each label beside the class of the largest logit, int64 [B, 2]; the lower one of a tie, on every device.

    Args:
        labels: int64 [B].
        logits: float [B, K].
        confidence: float [B], NaN for rows without a softmax, whose class is ``NO_CLASS``.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    largest = logits == logits.amax(1, keepdim=True)
    first = torch.where(largest, classes, logits.shape[1]).amin(1)
    return torch.stack((labels, torch.where(confidence.isnan(), NO_CLASS, first)), 1)


class ClassCounts:
    """The two tables of one scorecard.

    ``pairs``: label and predicted class of each image of the last pass, int64 [N, 2].

    Args:
        scorecard: path of scorecard.json, beside which the files are; None: no files.
        names: class names; empty: numbers.
        labels: int64 [N], of the data.
        classes: number of classes.
        card: the scorecard; columns of conditions that it does not have are dropped.
        outputs: the model's outputs by predicted class; None: they are the classes.
        output_names: the names of the model's outputs; None: they have none.
    """

    def __init__(
        self,
        scorecard: Path | None,
        names: Sequence[str],
        labels: np.ndarray,
        classes: int,
        card: ScorecardData,
        outputs: Sequence[int] | None = None,
        output_names: Sequence[str] | None = None,
    ) -> None:
        self.outputs, self.output_names = outputs, output_names
        self.card, self.suffix = card, ""
        self.folder = None if scorecard is None else scorecard.parent
        self.pairs = np.zeros((0, 2), np.int64)
        self.names = list(names) or [str(index) for index in range(classes)]
        self.images = np.bincount(labels, minlength=len(self.names))
        self.wrong: dict[str, Sequence[int]] = {}
        if self.folder is not None and (self.folder / PER_CLASS).is_file():
            self._continue(self.folder / PER_CLASS, {heading(s, key) for s in card.suites for key in card.results(s)})

    def of(self, key: str, names: Sequence[str]) -> ClassCounts:
        """The tables of the last pass, over a set whose classes have other names."""
        own = ClassCounts(None, names, self.pairs[:, 0], len(names), self.card)
        own.folder, own.pairs, own.suffix = self.folder, self.pairs, f"-{key}"
        return own

    def _file(self, name: str) -> Path:
        stem, extension = name.split(".")
        return (self.folder or Path()) / f"{stem}{self.suffix}.{extension}"

    def add(self, suite: str, condition: str, clean: bool) -> None:
        """Add the condition of the last pass, and write the files.

        Args:
            suite: name of the suite.
            condition: name of the condition.
            clean: whether the images are the unchanged ones.
        """
        pairs = self.pairs
        labels, found = pairs.T
        self.wrong[heading(suite, condition)] = np.bincount(labels[labels != found], minlength=len(self.names)).tolist()
        if self.folder is None:
            return
        rows = [
            [name, int(count), *(column[k] for column in self.wrong.values())]
            for k, (name, count) in enumerate(zip(self.names, self.images))
        ]
        atomic_write(self._file(PER_CLASS), _csv(["class", "images", *self.wrong], rows))
        if clean:
            which, count = np.unique(pairs, axis=0, return_counts=True)
            named = [[self._name(a), self._name(b), int(n)] for (a, b), n in zip(which.tolist(), count)]
            atomic_write(self._file(CONFUSION), _csv(["true", "predicted", "images"], named))

    def _name(self, index: int) -> str:
        if 0 <= index < len(self.names):
            return self.names[index]
        if index == NO_CLASS:
            return "none"
        output = self.outputs[index] if self.outputs else index
        return self.output_names[output] if self.output_names else f"output {output}"

    def _continue(self, path: Path, known: set[str]) -> None:
        """Take over the columns of an earlier evaluation that still hold."""
        columns = read_columns(path)
        images = columns.get("images")
        if columns.get("class") == self.names and images == [str(count) for count in self.images]:
            kept = {key: column for key, column in columns.items() if key in known}
            with contextlib.suppress(ValueError):  # a damaged file is written anew
                self.wrong = {key: [int(value) for value in column] for key, column in kept.items()}


def heading(suite: str, condition: str) -> str:
    """The heading of a condition's column: ``fgsm``, ``imagenet-c fog/3``."""
    return suite if condition == suite else f"{suite} {condition}"


def read_columns(path: Path) -> Mapping[str, list[str]]:
    """The columns of a CSV file by heading; empty if it is missing or damaged."""
    try:
        rows = list(csv.reader(io.StringIO(path.read_text())))
    except (OSError, ValueError, csv.Error):
        return {}
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        return {}
    return {key: [row[index] for row in rows[1:]] for index, key in enumerate(rows[0])}


def _csv(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)
    return buffer.getvalue()
