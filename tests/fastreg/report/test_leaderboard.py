"""The leaderboard: order, groups, effective robustness against a plain fit, its three files, and its script."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from fastreg.errors import InputError
from fastreg.pipelines.natural_sets import NATURAL_SETS
from fastreg.report import print_leaderboard, write_leaderboard
from tests.fastreg.report.make_runs import Tags, make_run
from tests.support import fastreg


def with_clean_error(folder, error: float):
    path = folder / "scorecard.json"
    card = json.loads(path.read_text())
    card["suites"]["clean"]["results"]["clean"]["error"] = error
    path.write_text(json.dumps(card))
    return folder


@pytest.fixture
def runs(tmp_path):
    made = [make_run(tmp_path, name, reg=reg) for name, reg in (("b", "mixup"), ("a", "none"), ("c", "cutout"))]
    return [with_clean_error(folder, error) for folder, error in zip(made, (22.0, 25.0, 21.0))]


def baseline(path, slope: float, offset: float):
    """A file of models on a line in logits, and its expected error of a clean error."""

    def shifted(clean):
        share = 1 - np.asarray(clean) / 100
        logit = slope * np.log(share / (1 - share)) + offset
        return 100 / (1 + np.exp(logit))

    cleans = np.array([15.0, 20.0, 30.0, 45.0])
    rows = [f"{clean},{error},x" for clean, error in zip(cleans, shifted(cleans))]
    path.write_text("clean_error,imagenet_c_error,other\n" + "\n".join([*rows, "50,,y", "60,none,z"]) + "\n")
    return shifted


def test_the_best_run_is_first(runs, tmp_path):
    (board,) = write_leaderboard(runs, tmp_path, sort_by="clean_error")
    assert [run.name for run in board.runs] == ["c", "b", "a"]
    assert board.data == "imagenet val, n = 50,000, 224 px"
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").open()))
    assert [(row["rank"], row["run"], float(row["clean_error"])) for row in rows] == [
        ("1", "c", 21.0),
        ("2", "b", 22.0),
        ("3", "a", 25.0),
    ]


def test_other_data_is_ranked_apart(runs, tmp_path):
    other = make_run(tmp_path, "small", data={"n": 5000})
    boards = write_leaderboard([*runs, other], tmp_path)
    assert [len(board.runs) for board in boards] == [3, 1]
    assert "n = 5,000" in boards[1].data


def test_effective_robustness_is_the_distance_from_the_line(runs, tmp_path):
    expected = baseline(tmp_path / "models.csv", slope=1.3, offset=-1.1)
    (board,) = write_leaderboard(runs, tmp_path, baseline=tmp_path / "models.csv")
    (above,) = board.effective.values()
    for run in board.runs:
        summary = run.card.summary()
        wanted = expected(summary["clean_error"]) - summary["imagenet_c_error"]
        assert above[run.name] == pytest.approx(wanted, abs=1e-9)
    rows = list(csv.DictReader((tmp_path / "leaderboard.csv").open()))
    assert float(rows[0]["effective_imagenet_c_error"]) == pytest.approx(above[rows[0]["run"]])


def test_a_leaderboard_is_a_baseline(runs, tmp_path):
    write_leaderboard(runs, tmp_path)
    (board,) = write_leaderboard(runs, tmp_path, baseline=tmp_path / "leaderboard.csv")
    assert "effective_imagenet_c_error" in board.effective
    # residuals of a least-squares line in logits sum to nothing
    slope = []
    for run in board.runs:
        summary = run.card.summary()
        line = summary["imagenet_c_error"] + board.effective["effective_imagenet_c_error"][run.name]
        slope.append(
            np.log((100 - summary["imagenet_c_error"]) / summary["imagenet_c_error"]) - np.log((100 - line) / line)
        )
    assert sum(slope) == pytest.approx(0, abs=1e-9)


# accuracies of torchvision's ResNet-50 as Taori et al. publish them: on ImageNet, and on each set
RESNET50 = 76.13
SHIFTED = {
    "imagenetv2-matched-frequency": 63.21,
    "imagenetv2-threshold0.7": 72.29,
    "imagenetv2-top-images": 77.73,
    "imagenet-sketch": 24.09,
    "objectnet": 35.75,
}


def with_natural_sets(folder, share: float = 1.0):
    path = folder / "scorecard.json"
    card = json.loads(path.read_text())
    rows = {
        name: {"n": int(share * NATURAL_SETS[name].images), "nonfinite": 0, "error": 100 - accuracy, "ece": 5.0}
        for name, accuracy in SHIFTED.items()
    }
    card["suites"]["natural"] = {"settings": {"classes": "subset"}, "wanted": list(rows), "results": rows}
    path.write_text(json.dumps(card))
    return with_clean_error(folder, 100 - RESNET50)


def test_natural_sets_have_published_lines(tmp_path):
    """ResNet-50 was one of the models that the lines go through."""
    run = with_natural_sets(make_run(tmp_path, "r50"))
    (board,) = write_leaderboard([run], tmp_path)
    above = {key: own["r50"] for key, own in board.effective.items()}
    assert len(above) == len(SHIFTED)
    assert all(abs(value) < 1.2 for value in above.values())
    # the line of V2 in logits, by hand: 0.9232 * ln(76.13 / 23.87) - 0.4977 = 0.5731, so 63.95 %
    assert above["effective_imagenetv2_matched_frequency_error"] == pytest.approx(63.21 - 63.95, abs=0.01)
    page = (tmp_path / "leaderboard.html").read_text()
    assert "V2: 85 models of Taori et al. 2020" in page
    assert (tmp_path / "leaderboard.csv").read_text().count("effective_") == 5


@pytest.mark.parametrize("changed", [{"share": 0.5}, {"data": {"n": 5000}}, {"sample": True}])
def test_published_lines_are_for_whole_sets(tmp_path, changed):
    share = changed.pop("share", 1.0)
    run = with_natural_sets(make_run(tmp_path, "part", **changed), share)
    (board,) = write_leaderboard([run], tmp_path)
    assert not board.effective


def test_altered_figures_have_a_star_and_the_reason(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    same, other = make_run(tmp_path, "same"), make_run(tmp_path, "other", settings={"fgsm": {"epsilon": 4 / 255}})
    rankings = write_leaderboard([same, other], tmp_path)
    print_leaderboard(rankings)
    printed = capsys.readouterr().out
    rows = {name: next(line for line in printed.splitlines() if f" {name} " in line) for name in ("same", "other")}
    assert ("80.00*" in rows["other"], "80.00*" in rows["same"]) == (True, False)
    assert "* other: epsilon 0.01569 instead of 8/255." in printed
    page = (tmp_path / "leaderboard.html").read_text()
    assert page.count('<abbr title="epsilon 0.01569 instead of 8/255">*</abbr>') == 1


def test_entries_have_robustbenchs_keys(runs, tmp_path):
    write_leaderboard(runs[:1], tmp_path)
    (entry,) = json.loads((tmp_path / "leaderboard.json").read_text())
    known = {
        "name",
        "dataset",
        "architecture",
        "eps",
        "clean_acc",
        "autoattack_acc",
        "corruptions_acc",
        "corruptions_mce",
    }
    assert known <= entry.keys()
    assert (entry["clean_acc"], entry["autoattack_acc"], entry["eps"]) == (78.0, None, 8 / 255)
    assert entry["corruptions_mce"] == entry["figures"]["mce"]


def test_the_page_is_whole_and_escapes_names(tmp_path):
    run = make_run(tmp_path, "<b>x", reg="mixup")
    write_leaderboard([run], tmp_path)
    page = (tmp_path / "leaderboard.html").read_text()
    assert "<b>x" not in page
    assert "&lt;b&gt;x<small>" in page
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(address.startswith("data:") for address in tags.addresses)


def test_the_terminal_shows_names_as_they_are(runs, tmp_path, capsys):
    run = make_run(tmp_path, "[red]x", reg="mixup")
    print_leaderboard(write_leaderboard([run], tmp_path))
    assert "[red]x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("clean_error\n20\n", "no figure of 3 models"),
        ("top1\n20\n", "no column clean_error"),
        ("", "no column clean_error"),
    ],
)
def test_a_baseline_that_has_no_line(runs, tmp_path, content, words):
    (tmp_path / "models.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        write_leaderboard(runs, tmp_path / "out", baseline=tmp_path / "models.csv")
    assert not (tmp_path / "out").exists()


def test_wrong_input(runs, tmp_path):
    with pytest.raises(InputError, match="`sort_by` is 'speed': no run has that figure; give one of"):
        write_leaderboard(runs, tmp_path, sort_by="speed")
    with pytest.raises(InputError, match="no evaluated run in"):
        write_leaderboard(runs_root=tmp_path / "nowhere")
    with pytest.raises(InputError, match="cannot be read"):
        write_leaderboard(runs, baseline=tmp_path / "absent.csv")


@pytest.mark.slow
def test_the_command_ranks_all_runs(runs, tmp_path):
    done = fastreg("leaderboard", "--runs", tmp_path, "--sort-by", "clean_error", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "leaderboard.html").is_file()
    wrong = fastreg("leaderboard", "--runs", tmp_path, "--sort-by", "speed", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "--sort-by is 'speed'" in wrong.stderr
