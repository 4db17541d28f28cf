"""The losses of all steps as a curve of bounded length, kept in curves.json, so that no epoch reads the whole log."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastreg import files
from fastreg.log_files import is_number, stream_rows

LIMIT = 2048  # points; a curve of twice as many is halved


class LossCurve:
    """Points of ``every`` consecutive steps each: the last of them, its images and learning rate, and the mean loss.

    Attributes:
        every: steps of a whole point; doubled when there are 2 * LIMIT points.
        points: rows of step, position, sum of the losses, learning rate, number of steps.
    """

    def __init__(self, every: int = 1, points: Iterable[list[Any]] = ()) -> None:
        self.every, self.points = every, list(points)

    def add(self, row: dict[str, Any]) -> None:
        """Add a step's row of log.jsonl."""
        step, position, loss, lr = (row.get(key, 0) for key in ("step", "position", "loss", "lr"))
        if self.points and self.points[-1][4] < self.every:
            _, _, total, _, count = self.points[-1]
            self.points[-1] = [step, position, total + loss, lr, count + 1]
            return
        if len(self.points) == 2 * LIMIT:
            pairs = zip(self.points[::2], self.points[1::2])
            self.points = [[*b[:2], a[2] + b[2], b[3], a[4] + b[4]] for a, b in pairs]
            self.every *= 2
        self.points.append([step, position, loss, lr, 1])

    def cut(self, position: int) -> int:
        """Drop points that end after image ``position``. Returns the images up to which the curve is complete."""
        self.points = [point for point in self.points if point[1] <= position]
        return self.points[-1][1] if self.points else 0

    def rows(self) -> list[dict[str, Any]]:
        """The points as rows of steps: step, loss and lr."""
        return [{"step": step, "loss": total / count, "lr": lr} for step, _, total, lr, count in self.points]

    def save(self, folder: Path) -> None:
        """Write curves.json. Raises RunError if that fails."""
        files.atomic_write(folder / "curves.json", json.dumps({"every": self.every, "points": self.points}) + "\n")


def read_curve(folder: Path) -> LossCurve:
    """The curve in curves.json; empty if it is missing or damaged."""
    try:
        content = files.read_json(folder / "curves.json")
        every, points = content["every"], content["points"]
        sound = type(every) is int and every > 0 and len(points) <= 2 * LIMIT
        sound = sound and all(len(p) == 5 and all(map(is_number, p)) and p[4] > 0 for p in points)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return LossCurve()
    return LossCurve(every, points) if sound else LossCurve()


def curve_of(folder: Path) -> LossCurve:
    """The curve in curves.json, else made from log.jsonl."""
    curve = read_curve(folder)
    if not curve.points:
        for row in stream_rows(folder / "log.jsonl"):
            if row["kind"] == "step" and is_number(row.get("loss")):
                curve.add(row)
    return curve
