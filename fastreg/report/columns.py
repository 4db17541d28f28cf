"""Which figures a score table shows, by what was evaluated; shared by terminal, HTML, Markdown and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastreg.errors import InputError
from fastreg.evaluation.scorecard import Scorecard
from fastreg.report import published

# summary figure -> (heading, what it is)
FIGURES = {
    "average": ("Average", "mean of clean, FGSM, occlusion and the four corruption categories"),
    "clean_error": ("Clean", "top-1 error, %"),
    "top5_error": ("Top-5", "top-5 error, %"),
    "fgsm_error": ("FGSM", "top-1 error after one gradient-sign step, %"),
    "pgd_error": ("PGD", "top-1 error after ten projected steps, %"),
    "occlusion_error": ("Occlusion", "top-1 error behind a black centre square, %"),
    "ce_noise": ("Noise", "corruption error, % of AlexNet's"),
    "ce_blur": ("Blur", "corruption error, % of AlexNet's"),
    "ce_weather": ("Weather", "corruption error, % of AlexNet's"),
    "ce_digital": ("Digital", "corruption error, % of AlexNet's"),
    "mce": ("mCE", "mean corruption error, % of AlexNet's"),
    "relative_mce": ("Rel. mCE", "relative mean corruption error, % of AlexNet's"),
    "imagenet_c_noise": ("Noise err", "raw top-1 error, %"),
    "imagenet_c_blur": ("Blur err", "raw top-1 error, %"),
    "imagenet_c_weather": ("Weather err", "raw top-1 error, %"),
    "imagenet_c_digital": ("Digital err", "raw top-1 error, %"),
    "imagenet_c_error": ("ImageNet-C", "raw top-1 error, mean of 75 conditions, %"),
    "cifar_c_noise": ("Noise err", "raw top-1 error, %"),
    "cifar_c_blur": ("Blur err", "raw top-1 error, %"),
    "cifar_c_weather": ("Weather err", "raw top-1 error, %"),
    "cifar_c_digital": ("Digital err", "raw top-1 error, %"),
    "cifar_c_error": ("CIFAR-C", "raw top-1 error, mean of 75 conditions, %"),
    "ece": ("ECE", "expected calibration error, 20 bins, %"),
    "brier": ("Brier", "Brier score summed over classes, %"),
    "nll": ("NLL", "negative log-likelihood, nats"),
    "confidence": ("Confidence", "average top-1 probability, %"),
    "ood_error": ("OOD", "out-of-distribution detection error, mean of the seven sets, %"),
}
SECONDARY = ("top5_error", "relative_mce", "brier", "nll", "confidence")  # a table of their own on the page


class Run(NamedTuple):
    """One evaluated run: its folder's name, card, training config ({} for foreign weights) and log rows."""

    name: str
    folder: Path
    card: Scorecard
    config: dict[str, Any]
    log: list[dict[str, Any]]

    @property
    def training(self) -> dict[str, Any]:
        return self.config or self.card.provenance.get("training", {})

    def paper_row(self) -> tuple[str, dict[str, Any]] | None:
        """(what it was trained as, figures by summary key) of the paper's row with this run's methods."""
        dataset = self.training.get("dataset", self.card.data["name"])
        tables = {"imagenet": ("table4",), "cifar100": ("table1", "table2")}.get(dataset, ())
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

    def repeats_paper(self) -> bool:
        """Whether a difference to the paper's row means anything: the full set, the paper's model and length."""
        model = {"imagenet": "resnet50", "cifar100": "pyramidnet200"}.get(self.training.get("dataset", ""))
        return not self.card.sample and self.training.get("model") == model and self.training.get("epochs") == 300


def load_run(folder: Path | str) -> Run:
    """Read a run folder. Raises InputError when it has no scorecard."""
    import json

    from fastreg.runs import read_rows

    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no run folder at {folder}: give the path of one, such as runs/NAME.")
    config = folder / "config.json"
    return Run(
        folder.resolve().name,
        folder,
        Scorecard.load(folder / "scorecard.json"),
        json.loads(config.read_text()) if config.is_file() else {},
        read_rows(folder / "log.jsonl"),
    )


def shown(runs: Sequence[Run]) -> list[str]:
    """The figures that any of the runs has, in the table's order; raw categories only without normalised ones."""
    present = {key for run in runs for key in run.card.summary() if key in FIGURES}
    if "mce" in present:
        present -= {f"imagenet_c_{category}" for category in ("noise", "blur", "weather", "digital")}
    return [key for key in FIGURES if key in present]


def legend(keys: Sequence[str]) -> list[tuple[str, str]]:
    """(headings, meaning) with headings of one meaning joined."""
    joined: dict[str, list[str]] = {}
    for key in keys:
        heading, meaning = FIGURES[key]
        joined.setdefault(meaning, []).append(heading)
    return [(", ".join(headings), meaning) for meaning, headings in joined.items()]


def method(training: dict[str, Any]) -> str:
    """``mixup + LS 0.1``: the methods of a run in a few words."""
    if "reg" not in training:
        return "-"
    smoothing = float(training.get("ls") or 0)
    return training["reg"] + (f" + LS {smoothing:g}" if smoothing else "")
