"""Worst classes, confused pairs, calibration under corruption, and the stamp of sample data in a report."""

from __future__ import annotations

import re

import pytest

from fastreg.evaluation import Scorecard
from fastreg.report import print_scorecard, write_report
from fastreg.report.classes import classes
from fastreg.report.run_folder import load_run
from tests.fastreg.report.make_runs import make_run, read_report


def write_tables(folder, names=("cat", "dog", "<fox>")):
    (folder / "per_class.csv").write_text(
        f"class,images,clean,fgsm\n{names[0]},10,1,3\n{names[1]},5,4,4\n{names[2]},4,0,1\n"
    )
    pairs = [(0, 0, 9), (0, 1, 1), (1, 0, 3), (1, 1, 1), (1, 2, 1), (2, 2, 4)]
    rows = "".join(f"{names[a]},{names[b]},{count}\n" for a, b, count in pairs)
    (folder / "confusion.csv").write_text(f"true,predicted,images\n{rows}")


def test_worst_classes_and_confused_pairs(tmp_path):
    folder = make_run(tmp_path, "run")
    write_tables(folder)
    found = classes(load_run(folder))
    assert [(row["name"], row["error"], row["as"]) for row in found["worst"]] == [
        ("dog", 80.0, (3, "cat")),
        ("cat", 10.0, (1, "dog")),
    ]
    assert found["pairs"] == [("dog", "cat", 3), ("cat", "dog", 1), ("dog", "<fox>", 1)]
    assert [[cell["text"] for cell in row["cells"]] for row in found["map"]] == [
        ["90", "10", "0"],
        ["60", "20", "20"],
        ["0", "0", "100"],
    ]
    report = write_report([folder])
    text = read_report(report)[1]
    for words in ("Worst classes", "dog", "4 of 5", "cat (3)", "Most confused", "Percent of each true class"):
        assert words in text
    assert "<fox>" in text  # escaped in the page
    assert "<fox>" not in report.read_text()


def test_a_class_without_images_keeps_its_row_and_column(tmp_path):
    folder = make_run(tmp_path, "run")
    (folder / "per_class.csv").write_text("class,images,clean\na,4,1\nb,0,0\nc,2,0\n")
    (folder / "confusion.csv").write_text("true,predicted,images\na,a,3\na,b,1\nc,c,2\n")
    found = classes(load_run(folder))["map"]
    assert [row["name"] for row in found] == ["a", "b", "c"]
    cells = [[cell["text"] for cell in row["cells"]] for row in found]
    assert cells == [["75", "25", "0"], ["–", "–", "–"], ["0", "0", "100"]]


def test_a_damaged_cell_does_not_spoil_the_report(tmp_path):
    folder = make_run(tmp_path, "run")
    write_tables(folder)
    for file, damaged in (("per_class.csv", "cat,ten,1,3"), ("confusion.csv", "cat,cat,many")):
        write_tables(folder)
        text = (folder / file).read_text().splitlines()
        (folder / file).write_text("\n".join([text[0], damaged, *text[2:]]) + "\n")
        classes(load_run(folder))
        assert "Clean" in write_report([folder]).read_text()


def test_many_classes_have_no_heat_map_and_damaged_files_no_section(tmp_path):
    folder = make_run(tmp_path, "run")
    assert classes(load_run(folder)) == {}
    assert "Worst classes" not in write_report([folder]).read_text()
    lines = [f"c{k},10,{k % 7},0" for k in range(30)]
    (folder / "per_class.csv").write_text("\n".join(["class,images,clean,fgsm", *lines]) + "\n")
    found = classes(load_run(folder))
    assert (len(found["worst"]), found["pairs"], found["map"], found["count"]) == (10, [], [], 30)
    for text in ("class,images,clean\na,1\n", "class,images,clean\na,x,1\n", "", "\0"):
        (folder / "per_class.csv").write_text(text)
        assert classes(load_run(folder)) == {}
        write_report([folder])


def with_calibration(folder, extra):
    """Calibration errors of the corruptions: 4 + i / 7 + 2 severity + extra for the i-th."""
    card = Scorecard.load(folder / "scorecard.json")
    for index, row in enumerate(card.results("imagenet-c").values()):
        row["ece"] = 4 + index // 5 / 7 + 2 * (index % 5 + 1) + extra
    card.save(folder / "scorecard.json")
    return folder


def test_calibration_under_corruption_has_a_chart_and_a_total(tmp_path):
    plain = make_run(tmp_path, "plain", reg="mixup")
    assert "expected calibration error at each severity" not in write_report([plain]).read_text()
    folders = [with_calibration(make_run(tmp_path, f"r{extra}", reg="mixup"), extra) for extra in (0, 10)]
    report = write_report(folders).read_text()
    (alt,) = re.findall(r'aria-label="(imagenet-c: expected calibration error[^"]*)"', report)
    first, last = 3.0, 4.0 + 7 / 7 + 2 * 5  # the clean images; the mean of 15 corruptions at severity 5
    assert alt.endswith(f"r0 from {first:g} to {last:g}; r10 from {first:g} to {last + 10:g}")
    assert report.count('<p class="names">') == 3  # training, severity, calibration
    assert "ImageNet-C ECE" in report
    assert load_run(folders[0]).card.summary()["imagenet_c_ece"] == pytest.approx(4 + 1 + 2 * 3)


def test_occlusion_on_sample_data_is_stamped_everywhere(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    sample, full = make_run(tmp_path, "sample", sample=True), make_run(tmp_path, "full")
    words = "cannot be judged on sample data"
    report = write_report([sample])
    assert report.read_text().count(f'<small class="unfit">{words}</small>') == 1
    assert f"occlusion {words}: several of its classes are dark images" in read_report(report)[1]
    assert f"80.00\\* [{words}]".replace("\\", "") in report.with_suffix(".md").read_text()
    print_scorecard(load_run(sample).card)
    lines = capsys.readouterr().out.splitlines()
    assert any("Occlusion" in line and words in line for line in lines)
    assert words not in write_report([full]).read_text()
