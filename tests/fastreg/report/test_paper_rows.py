"""The paper's figures are printed only beside figures with the same measurement."""

import csv
import re

import pytest

from fastreg.report import paper, paper_rows, write_report
from fastreg.report.paper_rows import COLUMNS
from fastreg.report.run_folder import load_run
from tests.fastreg.report.make_runs import make_run, read_report

CORRUPTED = {"ce_noise", "ce_blur", "ce_weather", "ce_digital", "mce"}
ALL = {"average", "clean_error", "fgsm_error", "occlusion_error", *CORRUPTED}
KINDS = {
    "subset": ({"data": {"n": 5_000}}, ALL, "5,000 images of 1000 classes instead of 50,000 of 1000"),
    "v2": ({"data": {"name": "folder", "split": "v2", "n": 10_000}}, ALL, "on folder v2"),
    "sample": ({"sample": True}, ALL, "sample data"),
    "wide": ({"data": {"size": 288}}, ALL, "288 px instead of 224"),
    "memory": ({"settings": {"imagenet-c": {"fidelity": "memory"}}}, {"average", *CORRUPTED}, "fidelity memory"),
    "dali": ({"decoder": "dali"}, ALL, "decoded by dali, to other pixels than Pillow's"),
    "bf16": ({"precision": "bf16"}, ALL, "precision bf16 instead of fp32"),
    "strong": ({"settings": {"fgsm": {"epsilon": 4 / 255}}}, {"average", "fgsm_error"}, "epsilon 0.01569"),
    "both": (
        {"settings": {"fgsm": {"epsilon": 4 / 255, "clip": False}, "imagenet-c": {"constants": "tiny64"}}},
        {"average", "fgsm_error", *CORRUPTED},
        "epsilon 0.01569 instead of 8/255; pixels are not clipped to [0, 1]",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_figure_and_a_difference_need_the_same_measurement(tmp_path, kind):
    change, departing, why = KINDS[kind]
    run = load_run(make_run(tmp_path, "mine", reg="mixup", ls=0.1, **change))
    assert {key for key in ALL if run.departs(key)} == departing
    report = write_report([run.folder])
    rows = list(csv.DictReader(report.with_suffix(".csv").read_text().splitlines()))
    beside = rows[1] if len(rows) > 1 else {}
    summary = run.card.summary()
    # of 1000 classes, at 224 px, with no suite altered
    assert ("average" in summary) == (kind in ("subset", "dali", "bf16"))
    assert {key for key in ALL & set(summary) if beside.get(key)} == (ALL - departing) & set(summary)
    assert report.read_text().count("<small>-") + report.read_text().count("<small>+") == len(
        (ALL - departing) & set(summary)
    )
    text = read_report(report)[1]
    assert why in text
    assert ("the paper's figures of these methods" in text) == (len(rows) > 1)  # explained where it is shown
    assert why in report.with_suffix(".md").read_text()
    if "clean_error" in departing:
        assert "| 20.00* (" in report.with_suffix(".md").read_text()


def test_the_papers_own_measurement_is_compared_and_has_no_star(tmp_path):
    report = write_report([make_run(tmp_path, "mine", reg="mixup", ls=0.1)])
    assert report.read_text().count("<small>-") + report.read_text().count("<small>+") == len(ALL)
    text = report.with_suffix(".md").read_text()
    assert not re.search(r"\d\*", text)
    assert "| mine | mixup + LS 0.1 | imagenet val | 50,000 |" in text
    assert "| *paper* | Mixup + LS |  | 50,000 |" in text


def test_the_paper_command_marks_figures_of_another_measurement(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for kind, (change, _, _) in KINDS.items():
        make_run(tmp_path, kind, reg="mixup", ls=0.1, **change)
    make_run(tmp_path, "same", reg="mixup", ls=0.1)
    make_run(tmp_path, "short", reg="mixup", ls=0.1, epochs=12, model="resnet18")
    paper("table4", tmp_path)
    out = capsys.readouterr().out
    lines = {line.split("(")[0].strip(" *"): line for line in out.splitlines() if line.startswith("  ")}
    clean = {kind: "20.00*" in lines[kind] for kind in KINDS}
    assert clean == {kind: "clean_error" in departing for kind, (_, departing, _) in KINDS.items()}
    assert "80.00*" in lines["strong"]
    assert lines["memory"].count("*") == 5
    assert "*" not in lines["same"]
    assert "n = 50,000" in lines["same"]
    assert "(sample, n = 100, last epoch 47.50 clean)" in lines["sample"]
    assert lines["short"].startswith("  short* (n = 50,000, last epoch 47.50 clean)")
    assert lines["short"].count("*") == 1
    assert "* trained otherwise than the paper's Mixup + LS: short: model resnet18 instead of resnet50; epochs" in out
    for kind, (_, _, why) in KINDS.items():
        start = f"* measured otherwise than in the paper: {kind}"
        reasons = [line for line in out.splitlines() if line.startswith(start)]
        assert any(why in line for line in reasons)


def test_table2_prints_the_papers_own_contradiction(tmp_path, capsys):
    paper("table2", tmp_path)
    sentence = (
        "The paper contradicts itself: its categories, weighted 3/4/4/4, give CIFAR-C 45.88 / 50.54 / 52.31 / 42.51; "
        "it prints 45.11 / 50.04 / 51.65 / 42.01."
    )
    assert sentence in capsys.readouterr().out
    for table in ("table1", "table3", "table4"):
        paper(table, tmp_path)
        assert "contradicts" not in capsys.readouterr().out


def test_a_table_without_a_contradiction_has_no_such_sentence(monkeypatch):
    rows = paper_rows.rows("table2")
    weighted = [(3 * r["noise_err"] + 4 * (r["blur_err"] + r["weather_err"] + r["digital_err"])) / 15 for r in rows]
    agreeing = [row | {"cifar_c_err": round(mean, 2)} for row, mean in zip(rows, weighted)]
    monkeypatch.setattr(paper_rows, "rows", lambda table: agreeing)
    assert paper_rows.contradictions("table2") == ""


def test_cifars_columns_depend_on_their_own_suites(tmp_path):
    run = load_run(make_run(tmp_path, "c", dataset="cifar100", settings={"cifar-c": {"constants": "tiny64"}}))
    departing = {figure for _, figure in COLUMNS.values() if run.departs(figure) and not figure.startswith("ce_")}
    assert departing == {"cifar_c_error", *(f"cifar_c_{kind}" for kind in ("noise", "blur", "weather", "digital"))}


def test_names_of_runs_are_not_broken(tmp_path, capsys, monkeypatch):
    names = ("imagenet-resnet50-cutmix-labelsmoothing-2", "short")
    for name in names:
        make_run(tmp_path, name, reg="cutmix", ls=0.1)
    monkeypatch.setenv("COLUMNS", "80")
    paper("table4", tmp_path)
    words = capsys.readouterr().out.split()
    assert set(names) <= set(words)
