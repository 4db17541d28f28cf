"""Which figures a score table shows, by what was evaluated; shared by terminal, HTML, Markdown and CSV."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastreg.errors import InputError
from fastreg.evaluation.scorecard import Scorecard
from fastreg.evaluation.suites import ROWS
from fastreg.evaluation.types import Figure
from fastreg.report import paper_rows as published
from fastreg.report import svg

# summary figure -> the column and the suites that it is made of; those of several suites stand first
COLUMNS: dict[str, tuple[Figure, tuple[str, ...]]] = {
    key: (figure, figure.of or (name,))
    for name, row in sorted(ROWS.items(), key=lambda item: item[1].expands is None)
    for key, figure in row.figures.items()
}
# summary figure -> (heading, meaning, suites)
FIGURES = {key: (figure.heading, figure.meaning, suites) for key, (figure, suites) in COLUMNS.items()}
SECONDARY = tuple(key for key, (figure, _) in COLUMNS.items() if figure.secondary)  # a table of their own on the page


class Run(NamedTuple):
    """One evaluated run: its card, training config ({} for foreign weights) and log rows.

    ``name`` and ``colour`` are what it is shown by; no two runs of a report have the same name.
    """

    name: str
    folder: Path
    card: Scorecard
    config: dict[str, Any]
    log: list[dict[str, Any]]
    colour: str = svg.COLOURS[0]

    @property
    def training(self) -> dict[str, Any]:
        return self.config or self.card.provenance.get("training", {})

    @property
    def dataset(self) -> str:
        """What the run was trained on, as far as that is known."""
        return self.training.get("dataset", self.card.data["name"])

    def paper_row(self) -> tuple[str, dict[str, Any]] | None:
        """(what it was trained as, figures by summary key) of the paper's row with this run's methods."""
        tables = {"imagenet": ("table4",), "cifar100": ("table1", "table2")}.get(self.dataset, ())
        if "reg" not in self.training:
            return None
        found: dict[str, Any] = {}
        title = ""
        for table in tables:
            row = published.match(self.training, table)
            if row is not None:
                title = title or published.label(row)
                found |= {figure: row[key] for key, (_, figure) in published.columns(table).items()}
        return (title, found) if found else None

    def departs(self, key: str) -> str:
        """How a figure is not what the paper measures for its models, in words; empty when it is.

        The data's name, n, classes and size, and whatever was altered in the suites that the figure is made of.
        """
        data, paper = self.card.data, published.MEASURED.get(self.dataset)
        said = ["sample data"] if self.card.sample else []
        if paper is None or data["name"] != self.dataset:
            said.append(f"on {data['name']} {data['split']}")
        elif (data["n"], data["classes"]) != paper[:2]:
            said.append(f"{data['n']:,} images of {data['classes']} classes instead of {paper[0]:,} of {paper[1]}")
        if paper is not None and data["size"] != paper[2]:
            said.append(f"{data['size']} px instead of {paper[2]}")
        altered = [self.card.measuring, *(self.card.altered(suite) for suite in FIGURES[key][2])]
        return "; ".join([*said, *filter(None, altered)])

    def departures(self, keys: Sequence[str]) -> list[str]:
        """A sentence for each way in which some of the figures are not what the paper measures."""
        summary = self.card.summary()
        by_reason: dict[str, list[str]] = {}
        for key in keys:
            if key in summary:
                by_reason.setdefault(self.departs(key), []).append(FIGURES[key][0])
        if len(by_reason) == 1:
            return [f"{self.name}: {why}" for why in by_reason if why]
        return [f"{self.name}, {', '.join(headings)}: {why}" for why, headings in by_reason.items() if why]

    def repeats_paper(self) -> bool:
        """Whether it was trained as the paper's models were: the same architecture, for as long."""
        model = {"imagenet": "resnet50", "cifar100": "pyramidnet200"}.get(self.dataset)
        return self.training.get("model") == model and self.training.get("epochs") == 300


def load_runs(folders: Iterable[Path | str]) -> tuple[list[Run], list[str]]:
    """``(the runs of several folders, each once; a sentence for each that cannot be read)``, which is also printed.

    Runs whose folders have one name are told apart by what lies above.
    """
    found: dict[Path, Run] = {}
    broken = []
    for folder in folders:
        try:
            found[Path(folder).resolve()] = load_run(folder)
        except InputError as error:
            broken.append(str(error))
    for sentence in broken if found else ():  # of nothing but such, the caller says the first
        print(f"left out: {sentence}", file=sys.stderr)
    places = [place.parts for place in found]

    def name(own: tuple[str, ...]) -> str:
        depth = next(d for d in range(1, len(own) + 1) if sum(place[-d:] == own[-d:] for place in places) == 1)
        return "/".join(own[-depth:])

    runs = [
        run._replace(name=name(place), colour=svg.COLOURS[index % len(svg.COLOURS)])
        for index, (run, place) in enumerate(zip(found.values(), places))
    ]
    return runs, broken


def load_run(folder: Path | str) -> Run:
    """Read a run folder. Raises InputError when it has no scorecard, or a file of it is not what it should be."""
    from fastreg.runs import read_rows

    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no run folder at {folder}: give the path of one, such as runs/NAME.")
    card = Scorecard.load(folder / "scorecard.json")
    config = folder / "config.json"
    try:
        settings = json.loads(config.read_text()) if config.is_file() else {}
    except (ValueError, OSError) as error:
        raise InputError(f"{config} cannot be read ({error}): restore it, or move it away.") from error
    if not isinstance(settings, dict):
        raise InputError(f"{config} is not a run's settings: restore it, or move it away.")
    log = [row for row in read_rows(folder / "log.jsonl") if isinstance(row, dict)]
    return Run(folder.resolve().name, folder, card, settings, log)


def shown(runs: Sequence[Run]) -> list[str]:
    """The figures that any of the runs has, in the table's order, without those that another one stands for."""
    present = {key for run in runs for key in run.card.summary()}
    return [key for key, (figure, _) in COLUMNS.items() if key in present and figure.unless not in present]


def legend(keys: Sequence[str]) -> list[tuple[str, str]]:
    """(headings, meaning) with headings of one meaning joined."""
    joined: dict[str, list[str]] = {}
    for key in keys:
        heading, meaning, _ = FIGURES[key]
        joined.setdefault(meaning, []).append(heading)
    return [(", ".join(headings), meaning) for meaning, headings in joined.items()]


def method(training: dict[str, Any]) -> str:
    """``mixup + LS 0.1``: the methods of a run in a few words."""
    if "reg" not in training:
        return "-"
    smoothing = float(training.get("ls") or 0)
    return training["reg"] + (f" + LS {smoothing:g}" if smoothing else "")
