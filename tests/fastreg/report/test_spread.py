"""Intervals of shares of n images, and mean and standard deviation over seeds."""

import csv
import re
from statistics import stdev

import pytest
from scipy.stats import binomtest

from fastreg.evaluation.scorecard import Scorecard
from fastreg.report import paper, print_scorecard, write_report
from fastreg.report.run_folder import load_run
from fastreg.report.spread import by_seed, interval, intervals, over_seeds
from tests.fastreg.report.make_runs import make_run, read_report


@pytest.mark.parametrize(("wrong", "n"), [(0, 50), (50, 50), (10, 50), (1, 120), (119, 120), (10_000, 50_000)])
def test_the_interval_is_wilsons(wrong, n):
    expected = binomtest(wrong, n).proportion_ci(0.95, method="wilson")
    assert interval(100 * wrong / n, n) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-9)


def with_errors(folder, **errors):
    """Change the top-1 error of suites of one condition."""
    card = Scorecard.load(folder / "scorecard.json")
    for suite, error in errors.items():
        card.suites[suite]["results"][suite]["error"] = error
    card.save(folder / "scorecard.json")
    return folder


@pytest.fixture
def seeds(tmp_path):
    """Three runs that differ in the seed alone, and one of another learning rate."""
    runs = [
        with_errors(make_run(tmp_path, f"s{seed}", reg="mixup", seed=seed), clean=error)
        for seed, error in enumerate((20.0, 21.0, 23.5))
    ]
    return [*runs, make_run(tmp_path, "other", reg="mixup", seed=3, lr=0.2)]


def test_shares_have_an_interval_and_other_figures_none(tmp_path):
    run = load_run(make_run(tmp_path, "run"))
    keys = ["clean_error", "top5_error", "fgsm_error", "imagenet_c_error", "imagenet_c_noise", "mce", "ece", "average"]
    found = dict(zip(keys, intervals(run, keys)))
    assert [key for key in keys if found[key] is None] == ["mce", "ece", "average"]
    assert found["clean_error"] == interval(20.0, 50_000)


def test_runs_that_differ_in_the_seed_alone_are_one_group(tmp_path, seeds):
    runs = [load_run(folder) for folder in seeds]
    assert [[run.name for run in group] for group in by_seed(runs)] == [["s0", "s1", "s2"], ["other"]]
    again = load_run(make_run(tmp_path, "again", reg="mixup", seed=1))  # a repetition
    subset = load_run(make_run(tmp_path, "subset", reg="mixup", seed=4, data={"n": 500}))
    groups = by_seed([*runs, again, subset])
    assert [[run.name for run in group] for group in groups][2:] == [["again"], ["subset"]]
    (clean, mce) = over_seeds(runs[:3], ["clean_error", "mce"])
    assert clean == pytest.approx((21.5, stdev([20.0, 21.0, 23.5])))
    assert mce[1] == 0
    runs[1].card.suites["imagenet-c"]["settings"]["fidelity"] = "memory"
    assert over_seeds(runs[:3], ["clean_error", "mce"]) == [clean, None]  # not measured alike


def test_reports_and_tables_print_intervals_and_the_mean_over_seeds(tmp_path, capsys, monkeypatch, seeds):
    monkeypatch.setenv("COLUMNS", "220")
    report = write_report(seeds, tmp_path / "r.html")
    text = read_report(report)[1]
    assert "mean of seeds 0, 1, 2" in text
    assert "± 1.80" in text
    low, high = interval(20.0, 50_000)
    assert f"<td>20.00<small>{low:.2f}–{high:.2f}</small></td>" in report.read_text()
    assert report.read_text().count("<small>-1.08</small>") == 1  # 21.50 against the paper's 22.58, of the mean alone
    rows = list(csv.DictReader(report.with_suffix(".csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["s0", "s1", "s2", "mean of seeds 0, 1, 2", "paper", "other", "paper"]
    assert float(rows[0]["clean_error_low"]) == pytest.approx(low)
    assert float(rows[0]["clean_error_high"]) == pytest.approx(high)
    assert float(rows[3]["clean_error_std"]) == pytest.approx(stdev([20.0, 21.0, 23.5]))
    assert rows[3]["clean_error_low"] == rows[0]["clean_error_std"] == ""
    markdown = report.with_suffix(".md").read_text()
    assert f"20.00 ({low:.2f}–{high:.2f})" in markdown
    assert "21.50 ± 1.80" in markdown
    assert "Wilson's 95 % interval" in markdown
    paper("table4", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    at = next(index for index, line in enumerate(lines) if "mean of seeds 0, 1, 2" in line)
    assert "21.50" in lines[at]
    assert "±1.80" in lines[at + 1]
    assert any(f"{low:.2f}–{high:.2f}" in line for line in lines)
    for seed in range(2):
        make_run(tmp_path / "short", f"s{seed}", reg="mixup", seed=seed, epochs=90, settings={"fgsm": {"clip": False}})
    paper("table4", tmp_path / "short")
    mean = next(line for line in capsys.readouterr().out.splitlines() if "mean of seeds 0, 1*" in line)
    assert re.findall(r"[\d.]+\*", mean[24:])[0] == "80.00*"
    print_scorecard(load_run(seeds[0]).card, "clean")
    assert f"{low:.2f}–{high:.2f}" in capsys.readouterr().out
