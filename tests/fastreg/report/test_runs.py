"""Several runs in one report: each has its own facts and provenance, and a broken run does not stop the others."""

import csv
import json
import re

import pytest

from fastreg.errors import InputError
from fastreg.evaluation import Scorecard
from fastreg.files import write_json
from fastreg.report import figure1, paper, write_report
from fastreg.report.paper_tables import _confidences, evaluated
from tests.fastreg.report.make_runs import make_run, read_report


def test_runs_with_one_folder_name_keep_their_own_facts(tmp_path):
    first = make_run(tmp_path / "a" / "mine", "on-v2", data={"name": "folder", "split": "first"}, model="one")
    other = make_run(tmp_path / "b" / "mine", "on-v2", data={"name": "folder", "split": "second"}, model="two")
    lone = make_run(tmp_path, "lone")
    log = (other / "log.jsonl").read_text().replace("47.5", "31.25")
    (other / "log.jsonl").write_text(log)
    card = json.loads((other / "scorecard.json").read_text())
    card["suites"]["imagenet-c"]["settings"]["constants"] = "tiny64"
    write_json(other / "scorecard.json", card)
    report = write_report([first, other, lone, first], tmp_path / "r.html")
    rows = list(csv.DictReader(report.with_suffix(".csv").read_text().splitlines()))
    assert [row["run"] for row in rows if row["run"] != "paper"] == ["a/mine/on-v2", "b/mine/on-v2", "lone"]
    source = report.read_text()
    lines = re.findall(
        r'<p class="subtitle">.*?class="line (s\d+)".*?<b>(.*?)</b>.*?on folder (\w+).*?; (.*?)\.</p>', source
    )
    assert [split for _, _, split, _ in lines] == ["first", "second"]
    assert [name for _, name, _, _ in lines] == ["a/mine/on-v2", "b/mine/on-v2"]
    assert lines[0][0] != lines[1][0]
    assert "47.50 at the last" in lines[0][3]
    assert "31.25 at the best" in lines[1][3]
    captions = re.findall(r"<figcaption>(\S+)\. Percent of .*?constants (\w+)", source)
    assert captions == [("a/mine/on-v2", "imagenet224"), ("b/mine/on-v2", "tiny64"), ("lone", "imagenet224")]
    for style, name, _, _ in lines:
        assert re.search(rf'<h3><svg class="key".*?class="line {style}".*?</svg>{name}</h3>', source)
        assert f'<path class="line {style}" d="M' in source


BROKEN = {
    "scorecard.json": ["{", '{"format": "fastreg-scorecard-1"}', "[]", "\\x00", b"\xff\xfe", "rows", "suites"],
    "config.json": ["{", "[]", b"\xff\xfe"],
}


@pytest.mark.parametrize(("file", "content"), [(file, c) for file, contents in BROKEN.items() for c in contents])
def test_one_broken_run_is_named_and_stops_nothing(tmp_path, capsys, caplog, file, content):
    whole, broken = make_run(tmp_path, "whole"), make_run(tmp_path, "broken")
    if content in ("rows", "suites"):  # valid JSON of another shape
        card = json.loads((broken / file).read_text())
        card["suites"] = (
            3 if content == "suites" else {**card["suites"], "fgsm": {**card["suites"]["fgsm"], "results": 3}}
        )
        content = json.dumps(card)
    (broken / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    paper("table4", tmp_path)
    printed = capsys.readouterr().out
    assert "whole (" in printed
    assert "broken (" not in printed
    (warning,) = caplog.messages
    assert re.fullmatch(rf"left out: {broken}/{file} [^\n]*", warning)
    figure1(tmp_path / "f.png", tmp_path)
    text = read_report(write_report([broken, whole], tmp_path / "r.html"))[1]
    assert f"Left out: {broken}/{file}" in text
    caplog.clear()
    with pytest.raises(InputError, match=f"{broken}/{file}"):
        write_report([broken])
    assert not caplog.messages  # the error has the sentence
    with pytest.raises(InputError, match="no run folder at nowhere"):
        write_report(["nowhere", broken])


def test_markdown_and_csv_have_the_provenance_of_their_figures(tmp_path):
    folder = make_run(tmp_path, "a|b", sample=True)
    other = make_run(tmp_path, "cifar", dataset="cifar100", decoder="dali", skip=("fog",))
    report = write_report([folder, other], tmp_path / "r.html")
    first, second = csv.DictReader(report.with_suffix(".csv").read_text().splitlines())
    assert first["run"] == "a|b"
    assert (first["data"], first["split"], first["n"], first["size"]) == ("imagenet", "val", "100", "224")
    assert (first["fidelity"], first["precision"], first["seed"]) == ("imagenet-c dataset", "fp32", "0")
    assert (first["torch"], first["loader"], second["loader"]) == ("2.13.0", "folder", "dali")
    assert first["notes"].startswith("sample: measured on sample data")
    assert "missing: fog" in second["notes"]
    lines = report.with_suffix(".md").read_text().splitlines()
    row = next(line for line in lines if line.startswith("| a"))
    assert row.startswith("| a\\|b (sample) | none | imagenet val | 100 | ")
    table = lines[: lines.index("")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1  # as many cells in every row
    text = "\n".join(lines)
    assert "## a|b" in text
    assert "100 images <&>" in text
    assert "| packages | torch 2.13.0 |" in text
    assert "| precision | fp32 |" in text


def test_figure1_averages_runs_of_several_seeds_only(tmp_path):
    """Two seeds are one bar; a run of another learning rate is not averaged with them."""
    for name, confidence, own in (("s0", 70.0, {"seed": 0}), ("s1", 80.0, {"seed": 1}), ("other", 20.0, {"lr": 0.5})):
        folder = make_run(tmp_path, name, reg="mixup", **own)
        card = Scorecard.load(folder / "scorecard.json")
        card.suites["clean"]["results"]["clean"]["confidence"] = confidence
        card.save(folder / "scorecard.json")
    make_run(tmp_path, "smoothed", reg="mixup", ls=0.1)
    found = _confidences(evaluated(tmp_path))
    name = "mixup\nimagenet, n = 50,000"
    assert found == {f"{name}\ns0, s1": {False: 75.0}, f"{name}\nother": {False: 20.0}, name: {True: 77.0}}
