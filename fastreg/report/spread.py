"""The spread of figures: binomial intervals of one run, and mean and standard deviation over seeds.

Source: Wilson, Probable inference, the law of succession, and statistical inference (JASA 1927).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any

from fastreg.report.figures_table import COLUMNS, FIGURES
from fastreg.report.run_folder import Run

Z = NormalDist().inv_cdf(0.975)
# settings in which runs of several seeds may differ
OF_ONE_RUN = {"seed", "name", "output", "command", "data_dir", "data_root", "workers", "log_tensorboard", "log_wandb"}
OF_ONE_RUN |= {"recovery_interval", "log_interval", "profile", "checkpoint", "checkpoint_epoch"}


def interval(error: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an error in percent of ``n`` images.

    For a mean error over several corruptions of the same images it is an upper bound: the variance of an image's mean
    error p is at most p (1 - p).
    """
    p = error / 100
    middle = p + Z * Z / (2 * n)
    half = Z * math.sqrt(max(p * (1 - p), 0.0) / n + Z * Z / (4 * n * n))
    low, high = ((middle + side * half) / (1 + Z * Z / n) for side in (-1, 1))
    return 100 * min(max(low, 0.0), p), 100 * max(min(high, 1.0), p)


def intervals(run: Run, keys: Sequence[str]) -> list[tuple[float, float] | None]:
    """The interval of each figure of a run; None for figures that are no shares of its images."""
    summary = run.card.summary()
    return [interval(summary[key], _images(run, key)) if _is_share(key, summary) else None for key in keys]


def _is_share(key: str, summary: Mapping[str, Any]) -> bool:
    return key in summary and COLUMNS[key][0].share


def _images(run: Run, key: str) -> int:
    """The number of images that a figure is a share of."""
    own = COLUMNS[key][0].images_of
    return run.card.results(own[0])[own[1]]["n"] if own else run.card.data["n"]


def by_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups that differ in the training seed alone, in the order of their first runs."""
    groups: dict[str, list[Run]] = {}
    for index, run in enumerate(runs):
        settings = {key: value for key, value in run.training.items() if key not in OF_ONE_RUN}
        key = json.dumps([settings, run.card.data, run.card.settings], sort_keys=True, default=str)
        seeds = [other.training["seed"] for other in groups.get(key, [])]
        if run.training.get("seed") is None or run.training["seed"] in seeds:
            key = str(index)  # unknown training, or a repetition
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def over_seeds(runs: Sequence[Run], keys: Sequence[str]) -> list[tuple[float, float] | None]:
    """(mean, standard deviation) of each figure; None for figures that not all runs have, measured alike."""
    summaries = [run.card.summary() for run in runs]
    found: list[tuple[float, float] | None] = []
    for key in keys:
        alike = {_settings(run, key) for run in runs}
        if len(alike) > 1 or not all(key in summary for summary in summaries):
            found.append(None)
            continue
        values = [summary[key] for summary in summaries]
        found.append((fmean(values), stdev(values)))
    return found


def seeds_name(runs: Sequence[Run]) -> str:
    """``mean of seeds 0, 1, 2``."""
    return "mean of seeds " + ", ".join(str(run.training["seed"]) for run in runs)


def _settings(run: Run, key: str) -> str:
    used: list[Any] = [run.card.suite_settings(suite) for suite in FIGURES[key][2]]
    return json.dumps(used, sort_keys=True, default=str)
