"""Evaluated runs: the scorecard, the settings and the log of a run folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastreg.departures import departures
from fastreg.errors import InputError
from fastreg.evaluation.scorecard import Scorecard
from fastreg.log import log, printable
from fastreg.report import paper_rows, svg
from fastreg.report.figures_table import FIGURES
from fastreg.report.paper_comparison import training_differences
from fastreg.runs import read_epochs

# what a value of a wrong type raises
DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)


class Run(NamedTuple):
    """One evaluated run.

    Args:
        name: unique among the runs of a report.
        folder: the run folder.
        card: the scorecard.
        config: the training settings; empty for weights of unknown training.
        log: the rows of its epochs.
        series: its line style and color, below ``svg.N_SERIES``.
    """

    name: str
    folder: Path
    card: Scorecard
    config: dict[str, Any]
    log: list[dict[str, Any]]
    series: int = 0

    @property
    def training(self) -> dict[str, Any]:
        """The training settings: config.json, else those that the scorecard contains."""
        return self.config or self.card.provenance.get("training", {})

    @property
    def dataset(self) -> str:
        """The training data set; the evaluated one if the training is unknown."""
        return self.training.get("dataset", self.card.data["name"])

    @property
    def method(self) -> str:
        """Methods and label smoothing: ``mixup + LS 0.1``; ``-`` if unknown."""
        return method(self.training)

    def paper_row(self) -> tuple[str, dict[str, Any]] | None:
        """The paper's row with this run's methods: (its name, its figures by summary key)."""
        tables = {"imagenet": ("table4",), "cifar100": ("table1", "table2")}.get(self.dataset, ())
        if "reg" not in self.training:
            return None
        found: dict[str, Any] = {}
        title = ""
        for table in tables:
            row = paper_rows.match(self.training, table)
            if row is not None:
                title = title or paper_rows.label(row)
                found |= {figure: row[key] for key, (_, figure) in paper_rows.columns(table).items()}
        return (title, found) if found else None

    def paper_title(self) -> str:
        """The name of the paper's row with this run's methods; empty without one."""
        row = self.paper_row()
        return row[0] if row else ""

    @property
    def data_name(self) -> str:
        """The name and the split of the evaluated data."""
        return f"{self.card.data['name']} {self.card.data['split']}"

    def departs(self, key: str) -> str:
        """How the measurement of a figure differs from the paper's; empty if it does not.

        Compared: the data's name, number of images and classes, size, decoding, precision, and the settings of the
        suites that the figure is computed from.
        """
        data, paper = self.card.data, paper_rows.MEASURED.get(self.dataset)
        reasons = ["sample data"] if self.card.sample else []
        if paper is None or data["name"] != self.dataset:
            reasons.append(f"on {data['name']} {data['split']}")
        elif (data["n"], data["classes"]) != paper[:2]:
            reasons.append(f"{data['n']:,} images of {data['classes']} classes instead of {paper[0]:,} of {paper[1]}")
        if paper is not None and data["size"] != paper[2]:
            reasons.append(f"{data['size']} px instead of {paper[2]}")
        return "; ".join([*reasons, *filter(None, (self.card.measuring, self.altered(key)))])

    def altered(self, key: str) -> str:
        """How the settings of a figure's suites differ from the paper's; empty if they do not."""
        return "; ".join(filter(None, (self.card.altered(suite) for suite in FIGURES[key][2])))

    def departures(self, keys: Sequence[str]) -> list[str]:
        """One sentence for each way in which figures are measured otherwise than in the paper."""
        summary = self.card.summary()
        by_reason: dict[str, list[str]] = {}
        for key in keys:
            if key in summary:
                by_reason.setdefault(self.departs(key), []).append(FIGURES[key][0])
        if len(by_reason) == 1:
            return [f"{self.name}: {why}" for why in by_reason if why]
        return [f"{self.name}, {', '.join(headings)}: {why}" for why, headings in by_reason.items() if why]

    def trained_otherwise(self) -> str:
        """The settings that differ from the recipe of the paper's row; empty if none does, or without a row."""
        return "; ".join(training_differences(self.training, self.log))

    def from_the_code(self) -> str:
        """The topics in which a run of a paper row differs from the original code; empty without a row or any."""
        if self.paper_row() is None:
            return ""
        return ", ".join(row.topic for row in departures({**self.training, "dataset": self.dataset}))

    def measured_otherwise(self, keys: Sequence[str]) -> str:
        """The differences of measurement of some figures, in one line; empty if there is none."""
        return " | ".join(self.departures(keys)).replace(f"{self.name}: ", "").replace(f"{self.name}, ", "")


def method(training: dict[str, Any]) -> str:
    """Methods and label smoothing of training settings: ``mixup + LS 0.1``; ``-`` if unknown."""
    if "reg" not in training:
        return "-"
    smoothing = float(training.get("ls") or 0)
    return training["reg"] + (f" + LS {smoothing:g}" if smoothing else "")


def load_runs(folders: Iterable[Path | str]) -> tuple[list[Run], list[str]]:
    """Read run folders, each once. Runs whose folders have one name are named with the folders above.

    Returns:
        The runs, and one sentence for each folder that cannot be read. If there is a run, the sentences are logged too.
    """
    found: dict[Path, Run] = {}
    broken = []
    for folder in folders:
        try:
            found[Path(folder).resolve()] = load_run(folder)
        except InputError as error:
            broken.append(str(error))
    for sentence in broken if found else ():  # without any run the caller raises the first
        log.warning("left out: %s", sentence)
    paths = [path.parts for path in found]

    def name(own: tuple[str, ...]) -> str:
        depth = next(d for d in range(1, len(own) + 1) if sum(path[-d:] == own[-d:] for path in paths) == 1)
        return "/".join(own[-depth:])

    runs = [
        run._replace(name=name(path), series=index % svg.N_SERIES)
        for index, (run, path) in enumerate(zip(found.values(), paths))
    ]
    return runs, broken


def load_run(folder: Path | str) -> Run:
    """Read a run folder.

    Raises:
        InputError: it has no scorecard, or one of its files cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no run folder at {folder}: give the path of one, such as runs/NAME.")
    card = Scorecard.load(folder / "scorecard.json")
    config = folder / "config.json"
    try:
        settings = json.loads(config.read_text()) if config.is_file() else {}
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{config} cannot be read ({error}): restore it, or move it away.") from error
    if not isinstance(settings, dict):
        raise InputError(f"{config} does not contain the settings of a run: restore it, or move it away.")
    try:  # what every report shows of a run
        card, settings = Scorecard(**_printable(vars(card))), _printable(settings)
        run = Run(printable(folder.resolve().name), folder, card, settings, read_epochs(folder))
        run.departures(list(FIGURES))
        run.trained_otherwise()
        run.paper_row()
        str(run.method) + str(run.dataset) + str(run.data_name)
    except DAMAGE as error:
        raise InputError(damaged(folder, error)) from error
    return run


def _printable(value: Any) -> Any:
    """Values of a file with printable texts: names in it may hold what steers a terminal."""
    if isinstance(value, dict):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_printable(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value


def damaged(folder: Path, error: Exception) -> str:
    """One sentence about a run whose files have values of wrong types."""
    why = f"{type(error).__name__}: {error}".split("\n")[0][:200].rstrip(".")
    return f"the files of {folder} have values of wrong types ({why}): restore them, or move the folder away."
