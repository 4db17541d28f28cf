"""The report of evaluated runs: one self-contained HTML page, with Markdown and CSV beside it."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fastreg.errors import InputError, RunError
from fastreg.evaluation.suites import CORRUPTED
from fastreg.files import atomic_write
from fastreg.log import log
from fastreg.pipelines.image import ERRORS, header, pixels, reason
from fastreg.report import figures, svg
from fastreg.report.classes import classes
from fastreg.report.figures_table import SECONDARY, UNFIT, shown
from fastreg.report.provenance import provenance
from fastreg.report.run_folder import DAMAGE, Run, damaged, load_runs, method
from fastreg.report.scores import INTERVALS, OVER_SEEDS, ScoreTable, cell, comma_separated, markdown, score_table
from fastreg.runs import newest, stored_data_dir
from fastreg.version import __version__


def write_report(
    runs: Sequence[str | Path] = (), out: str | Path | None = None, runs_root: str | Path = "runs"
) -> Path:
    """Write a report of evaluated runs as HTML, Markdown and CSV.

    The page contains its images and styles and loads nothing from the network. Folders that cannot be read are left
    out and named on the page.

    Args:
        runs: run folders; none: the newest run.
        out: the .html file; the .md and .csv files are written beside it. Default: ``report.html`` in the run folder,
            for several runs in the folder above the first.
        runs_root: the folder in which the newest run is looked for.

    Returns:
        The path of the .html file.

    Raises:
        InputError: no folder can be read, or ``out`` is not an .html file.
    """
    loaded, broken = load_runs(runs or [newest(runs_root)])
    if not loaded:
        raise InputError(broken[0])
    first = loaded[0].folder
    above = Path(os.path.normpath(first / ".."))  # the parent of Path(".") would be "."
    path = Path(out) if out is not None else (first if len(loaded) == 1 else above) / "report.html"
    if path.suffix != ".html":
        raise InputError(f"`out` is {path}: give the name of an .html file.")
    try:
        texts = _texts(loaded, broken)
    except DAMAGE:  # a file with values of wrong types, which only this part of the report reads
        whole, more = _that_can_be_shown(loaded)
        if not more:
            raise
        if not whole:
            raise InputError(more[0]) from None
        texts = _texts(whole, [*broken, *more])
    for suffix, text in texts.items():
        atomic_write(path.with_suffix(suffix), text)
    return path


def _texts(runs: Sequence[Run], broken: Sequence[str]) -> dict[str, str]:
    """The content of the files of a report by suffix."""
    table = score_table(runs, shown(run.card.summary() for run in runs))
    html = _render(runs, broken)
    return {".html": html, ".md": markdown(runs, table), ".csv": comma_separated(runs, table)}


def _that_can_be_shown(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The runs of which a report can be made, and one sentence for each other one."""
    whole, sentences = [], []
    for run in runs:
        try:
            _texts([run], ())
            whole.append(run)
        except DAMAGE as error:
            sentences.append(damaged(run.folder, error))
            log.warning("left out: %s", sentences[-1])
    return whole, sentences


def _render(runs: Sequence[Run], broken: Sequence[str] = ()) -> str:
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    here = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(here), autoescape=select_autoescape(["html"]), trim_blocks=True)
    tables = [score_table(runs, keys) for keys in _split(shown(run.card.summary() for run in runs)) if keys]
    environment.filters |= {"cell": cell, "method": method, "epochs": figures.best_and_last}
    environment.globals["key"] = lambda run: Markup(svg.key(run.series))
    return environment.get_template("report.html").render(
        version=__version__,
        style=(here / "report.css").read_text(),
        title=_title(runs),
        runs=runs,
        broken=broken,
        tables=tables,
        training=figures.training(runs),
        legend=runs if 1 < len(runs) <= svg.N_SERIES else [],
        paper=_paper_note(tables),
        intervals=INTERVALS,
        unfit=UNFIT,
        over_seeds=OVER_SEEDS if any(row.kind == "seeds" for table in tables for row in table.rows) else "",
        suites=[_suite(runs, suite) for suite in CORRUPTED if any(run.card.results(suite) for run in runs)],
        calibration=figures.calibration(runs),
        calibration_curves=[chart for suite in CORRUPTED for chart in figures.calibration_curves(runs, suite)],
        classes=[(run, found) for run in runs if (found := classes(run))],
        ood=figures.detection(runs),
        sheet=_sheet(runs[0]),
        provenance=[(run, provenance(run)) for run in runs],
    )


def _title(runs: Sequence[Run]) -> str:
    """The names of the runs; of many their number."""
    return ", ".join(run.name for run in runs) if len(runs) <= 3 else f"{len(runs)} runs"


def _paper_note(tables: Sequence[ScoreTable]) -> str:
    """The meaning of the gray rows; empty if there are none."""
    if not any(row.kind == "paper" for table in tables for row in table.rows):
        return ""
    note = "the paper's figures of these methods (PyramidNet-200 on CIFAR-100, ResNet-50 on ImageNet, 300 epochs)"
    return note + "; differences are given for runs without a star, trained as the row's recipe"


def _split(keys: Sequence[str]) -> tuple[list[str], list[str]]:
    return [key for key in keys if key not in SECONDARY], [key for key in keys if key in SECONDARY]


def _suite(runs: Sequence[Run], suite: str) -> dict[str, Any]:
    """Heat maps (one per run) and severity curves of a corruption suite."""
    maps = [(run, figures.heat_map(run, suite)) for run in runs if run.card.results(suite)]
    shared = 1 < len(maps) <= svg.N_SERIES
    return {
        "name": suite,
        "maps": maps,
        "curves": figures.severity_curves(runs, suite),
        "has_clean": figures.has_clean([run for run, _ in maps]),
        "legend": [run for run, _ in maps] if shared else [],
    }


def _sheet(run: Run) -> dict[str, Any]:
    """The contact sheet of one validation image as a data URI, or the reason why there is none."""
    measured = [run.card.suite_settings(suite) for suite in CORRUPTED if run.card.results(suite)]
    if not measured:
        return {}
    constants = "auto" if "frost_scale" in measured[0] else measured[0].get("constants") or "auto"
    from fastreg.report.sheet import contact_sheet

    try:
        source, size = _first_image(run)
        image, notes = contact_sheet(source, size=size, constants=constants, tile=96)
    except (InputError, RunError, *ERRORS) as error:
        return {"why": f"No contact sheet: {error}"}
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0)  # full color resolution, for single pixels
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    alt = f"A validation image of {run.data_name} under every corruption (rows) at severities 1 to 5 (columns)"
    return {"uri": uri, "alt": alt, "width": image.width, "height": image.height, "why": " ".join(notes)}


def _first_image(run: Run) -> tuple[Any, int]:
    """(image, size): of the first validation images of twelve classes, the one with the most color and contrast."""
    import numpy as np

    from fastreg.pipelines import open_dataset
    from fastreg.pipelines.datasets import validation_as

    training = run.training
    if "dataset" not in training:
        raise InputError("the scorecard does not name its image folder.")
    try:
        folder = stored_data_dir(training)
    except InputError:
        missing = training.get("data_root") or training["data_dir"]
        raise InputError(f"the images of {run.name} are no longer in {missing}.") from None
    source = open_dataset(training["dataset"], "val", folder, **validation_as(training))
    _, firsts = np.unique(source.labels, return_index=True)
    chosen = firsts[:: max(1, len(firsts) // 12)][:12]
    images = [image for index in chosen if (image := _decoded(source, int(index))) is not None]
    if not images:
        raise InputError(f"none of the first images of {source.root} can be decoded: run `fastreg data verify`.")

    def variety(image: Any) -> float:
        small = np.asarray(image.resize((32, 32)), np.float32)
        return float(np.ptp(small, axis=2).mean() * small.mean(axis=2).std())

    best = max(images, key=variety)
    size = run.card.data["size"]
    return (np.asarray(best) if source.form == "arrays" else best), size


def _decoded(source: Any, index: int) -> Any:
    """An image of a source; None, with a warning that names it, for a broken one."""
    from PIL import Image

    try:
        stored = source.read(index)
        return Image.fromarray(pixels(stored, header(stored).plain))
    except ERRORS as error:
        log.warning("left out of the contact sheet: %s (%s)", source.describe(index), reason(error))
        return None
