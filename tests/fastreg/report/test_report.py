"""The report of run folders, its tables and images, and the paper's tables."""

import base64
import csv
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fastreg.errors import InputError, RunError
from fastreg.report import contact_sheet, figure1, paper, paper_rows, print_scorecard, svg, write_report
from fastreg.report.run_folder import load_run
from tests.fastreg.report.make_runs import make_run, read_report
from tests.support import write_tiny_imagenet


def test_the_report_is_complete_and_loads_nothing(tmp_path):
    runs = [make_run(tmp_path, "base"), make_run(tmp_path, "mix", reg="mixup", ls=0.1)]
    report = write_report(runs, tmp_path / "report.html")
    tags, text = read_report(report)
    assert all(address.startswith("data:") for address in tags.addresses)
    assert not re.search(r"url\(|@import|<script", report.read_text())
    assert "20.00" in text
    assert "Mixup + LS" in text
    assert "best epoch (5), 47.50 at the last (300)" in text
    assert "100 images <&>" in text  # escaped in the HTML, whole when read
    assert text.count("gaussian noise") >= 3  # two heat maps and a curve
    assert "No contact sheet" in text  # its images are missing, and the report notes it


def test_the_table_has_the_papers_row_in_gray_and_differences_only_for_the_same_training(tmp_path):
    same = make_run(tmp_path, "same", reg="mixup", ls=0.1)
    short = make_run(tmp_path, "short", reg="mixup", ls=0.1, epochs=12)
    small = make_run(tmp_path, "small", reg="cutmix", sample=True)
    report = write_report([same, short, small], tmp_path / "r.html")
    assert report.read_text().count("<small>-2.41</small>") == 1  # 20.00 against the paper's 22.41, once
    rows = list(csv.DictReader(report.with_suffix(".csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["same", "paper", "short", "paper", "small"]
    assert [row["n"] for row in rows] == ["50000", "50000", "50000", "50000", "100"]
    assert float(rows[1]["mce"]) == 69.14
    assert float(rows[0]["mce"]) > 0
    assert rows[4]["mce"] == ""  # sample data
    assert float(rows[4]["imagenet_c_error"]) == pytest.approx(30 + 7 + 15)
    assert "| small (sample) |" in report.with_suffix(".md").read_text()


def test_a_partial_suite_prints_no_total_anywhere(tmp_path):
    folder = make_run(tmp_path, "part", skip=("fog",))
    report = write_report([folder])
    assert report == folder / "report.html"
    header = report.with_suffix(".csv").read_text().splitlines()[0]
    assert not {"mce", "imagenet_c_error", "average"} & set(header.split(","))
    assert "missing: fog" in read_report(report)[1]


def test_cifar_reports_have_out_of_distribution_scores(tmp_path):
    folder = make_run(tmp_path, "c", dataset="cifar100", model="pyramidnet200", reg="cutout+shakedrop", ls=0.1)
    report = write_report([folder])
    text = read_report(report)[1]
    assert "1 of the paper's 7 sets" in text
    assert "ood_error" not in report.with_suffix(".csv").read_text().splitlines()[0]
    assert "| OOD |" not in report.with_suffix(".md").read_text()
    assert "uniform: detection error 20.0" in text
    assert "Cutout + ShakeDrop + LS" in text
    assert load_run(folder).paper_row()[1]["ood_error"] == 18.4


def test_reports_of_missing_runs(tmp_path):
    with pytest.raises(InputError, match="no run folder"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no scorecard"):
        write_report([tmp_path])
    (tmp_path / "scorecard.json").write_text("{")
    with pytest.raises(InputError, match="not a scorecard"):
        write_report([tmp_path])
    (tmp_path / "scorecard.json").write_text('{"format": "fastreg-scorecard-1"}')
    with pytest.raises(InputError, match="lacks 'model'"):
        write_report([tmp_path])
    with pytest.raises(InputError, match=r"`out` is .*report\.pdf: give the name of an \.html file"):
        write_report([make_run(tmp_path, "x")], tmp_path / "report.pdf")


def test_every_printed_row_has_its_own_methods():
    for table in ("table1", "table4"):
        found = [paper_rows.identity(row) for row in paper_rows.rows(table)]
        assert len(set(found)) == len(found)
        for row in paper_rows.rows(table):
            methods, smoothing = paper_rows.identity(row)
            training = {"reg": "+".join(sorted(methods)), "ls": 0.1 if smoothing else 0.0}
            assert paper_rows.match(training, table) is row
    assert paper_rows.match({"reg": "mixup+cutmix", "ls": 0}, "table4") is None
    assert len(paper_rows.rows("table1")) == 22
    assert len(paper_rows.rows("table4")) == 12


@pytest.mark.parametrize("width", ["40", "80"])
def test_the_paper_command_prints_all_columns_in_a_narrow_terminal(tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    make_run(tmp_path, "mine", reg="cutmix", ls=0)
    paper("table4", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    heading = next(line for line in lines if line.startswith("method"))
    assert heading.split()[-2:] == ["Digital", "mCE"]
    baseline = next(line for line in lines if line.startswith("Baseline"))
    assert baseline.split()[-2:] == ["80.24", "77.55"]


def test_the_paper_command_prints_runs_below_their_rows(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    make_run(tmp_path, "mine", reg="cutmix+shakedrop", ls=0.1)
    paper("table4", tmp_path)
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if "CutMix + SD + LS" in line)
    assert "76.14" in lines[at]
    assert "mine (n = 50,000, last epoch 47.50 clean)" in lines[at + 1]
    assert "20.00" in lines[at + 1]
    for table in ("table1", "table2", "table3"):
        paper(table, tmp_path / "none")
    assert "Cutout + SD + LS" in capsys.readouterr().out
    with pytest.raises(InputError, match="did you mean 'table4'"):
        paper("table5", tmp_path)


def test_figure1_draws_runs_or_raises_without_any(tmp_path):
    with pytest.raises(InputError, match="no evaluated run"):
        figure1(tmp_path / "f.png", tmp_path)
    make_run(tmp_path, "a")
    make_run(tmp_path, "b", ls=0.1)
    with pytest.raises(InputError, match=r"`out` is .*f\.gif"):
        figure1(tmp_path / "f.gif", tmp_path)
    with Image.open(figure1(tmp_path / "f.png", tmp_path)) as image:
        assert min(image.size) > 300
        assert len(np.unique(np.asarray(image).reshape(-1, len(image.getbands())), axis=0)) > 20


def test_the_terminal_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    print_scorecard(load_run(make_run(tmp_path, "a", sample=True)).card)
    out = capsys.readouterr().out
    assert "(sample)" in out
    assert "n = 100" in out
    assert "mCE" not in out
    assert re.search(r"gaussian_noise .* 35\.0 .* 55\.0 .* 45\.0", out)
    with pytest.raises(InputError, match="unknown suite 'clear'"):
        print_scorecard(load_run(tmp_path / "a").card, "clear")
    capsys.readouterr()
    print_scorecard(load_run(tmp_path / "a").card, "clean")
    out = capsys.readouterr().out
    assert "n = 100" in out
    assert "gaussian_noise" not in out  # measured, but not asked for


def test_a_report_about_several_runs_is_written_above_them(tmp_path, monkeypatch):
    folders = [make_run(tmp_path, name) for name in ("a", "b")]
    assert write_report(folders) == tmp_path / "report.html"
    monkeypatch.chdir(folders[0])
    assert write_report([".", "../b"]).resolve() == tmp_path / "report.html"
    assert not (folders[0] / "report.html").exists()


def test_a_contact_sheet_of_every_corruption(tmp_path):
    gradient = np.linspace(0, 255, 300, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(gradient[:, None], gradient[None, :200], np.uint8(90)), axis=-1)
    source = tmp_path / "image.png"
    Image.fromarray(pixels).save(source)
    names = "gaussian_noise,brightness,saturate"
    sheet, notes = contact_sheet(source, tmp_path / "sheet.png", corruptions=names, size=64)
    assert notes == []
    tile = 128  # 64 px, enlarged twice
    assert sheet.size == (128 + 6 * (tile + 4) + 4, 40 + 26 + 3 * (26 + tile + 4) + 4)  # three categories
    with Image.open(tmp_path / "sheet.png") as saved:
        assert np.array_equal(np.asarray(saved), np.asarray(sheet))
    top = 40 + 26 + 26 + tile + 4 + 26  # below the title, the severities and the group of noise
    tiles = [np.asarray(sheet)[top : top + tile, 128 + c * (tile + 4) :][:, :tile].astype(int) for c in range(6)]
    for drawn in tiles:  # each pixel is a square of four
        assert np.array_equal(drawn, drawn[::2, ::2].repeat(2, 0).repeat(2, 1))
    brightness = [drawn.mean() for drawn in tiles]
    assert brightness == sorted(brightness)
    assert brightness[5] > brightness[0] + 40
    with pytest.raises(InputError, match="`size` is 0"):
        contact_sheet(source, size=0)
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(RunError, match=r"text\.jpg"):
        contact_sheet(tmp_path / "text.jpg")
    with pytest.raises(InputError, match="no image at"):
        contact_sheet(tmp_path / "absent.png")
    with pytest.raises(InputError, match=r"`out` is .*sheet\.txt"):
        contact_sheet(source, tmp_path / "sheet.txt", corruptions="brightness", size=64)


def test_the_html_shows_the_corruptions_at_the_runs_own_size_and_constants(tmp_path):
    data = write_tiny_imagenet(tmp_path / "data")
    own = {"imagenet-c": {"constants": "cifar32"}}
    folder = make_run(tmp_path, "run", data={"size": 32}, settings=own, data_dir=str(data))
    page = write_report([folder]).read_text()
    pattern = r'<img class="sheet" src="data:image/jpeg;base64,([^"]+)" width="(\d+)" height="(\d+)" alt="(.*?)">'
    found = re.search(pattern, page)
    assert found[4] == "A validation image of imagenet val under every corruption (rows) at severities 1 to 5 (columns)"
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as image:
        assert image.size == (int(found[2]), int(found[3]))
        assert image.width == 128 + 6 * (96 + 4) + 4  # 32 px, enlarged three times


def test_a_sheet_without_frost_images_notes_it(tmp_path):
    pixels = np.full((32, 32, 3), 90, np.uint8)
    sheet, notes = contact_sheet(pixels, corruptions="frost,fog", size=32, frost_dir=tmp_path)
    assert sheet.size[1] == 40 + 26 + 26 + 128 + 4 + 4  # fog alone
    assert len(notes) == 1
    assert "frost is left out" in notes[0]
    with pytest.raises(InputError, match=r"frost1\.png.* or leave frost out"):
        contact_sheet(pixels, corruptions="frost,fog", size=32, frost_dir=tmp_path, strict=True)


def test_a_sheet_with_frost_images_smaller_than_the_image_notes_it(monkeypatch):
    from fastreg.pipelines import frost
    from tests.kernels.corruptions.golden_cases import frost_textures

    monkeypatch.setattr(frost, "load_frost", lambda folder: frost_textures())
    pixels = np.full((70, 70, 3), 90, np.uint8)
    sheet, notes = contact_sheet(pixels, corruptions="frost,contrast", constants="cifar32")
    assert sheet.size[1] == 40 + 26 + 26 + 140 + 4 + 4  # contrast alone
    assert "frost is left out: images of 70 px: frost texture 2 in `textures` is 63 x 112 (scaled by 0.2)" in notes[0]


@pytest.mark.parametrize("span", [(0, 1), (0, 100), (0, 7.3), (2.2, 2.9), (-3, 3), (0, 1e-4)])
def test_ticks_are_round_and_inside(span):
    ticks = svg.ticks(*span)
    assert 2 <= len(ticks) <= 7
    assert min(ticks) >= span[0] - 1e-9
    assert max(ticks) <= span[1] + 1e-9


def test_charts_leave_out_nan():
    line = svg.Line("a <run>", [0, 1, 2, 3], [1.0, None, float("nan"), 4.0], 0, True)
    chart = svg.lines([line], x_label="x", y_label="y", alt="")
    assert chart.count("<circle") == 2
    assert "nan" not in chart
    assert "a &lt;run&gt;" in chart
    assert svg.lines([], x_label="x", y_label="y", alt="").endswith("</svg>")


def test_a_card_without_calibration_bins_has_a_report_without_their_charts(tmp_path):
    folder = make_run(tmp_path, "mine")
    path = folder / "scorecard.json"
    card = json.loads(path.read_text())
    del card["suites"]["clean"]["results"]["clean"]["bins"]
    path.write_text(json.dumps(card))
    text = write_report([folder]).read_text()
    assert "Reliability diagram of mine" not in text
    assert "20.00" in text


def test_a_broken_first_image_is_named_and_another_is_drawn(tmp_path, messages):
    data = write_tiny_imagenet(tmp_path / "data")
    (data / "val" / "class0" / "val_0_000.JPEG").write_bytes(b"\xff\xd8 no image")
    folder = make_run(tmp_path, "mine", data_dir=str(data), data={"size": 32})
    text = write_report([folder]).read_text()
    assert "data:image/jpeg;base64," in text
    assert any("left out of the contact sheet: " in one and "val_0_000.JPEG" in one for one in messages)
    for image in (data / "val").rglob("*.JPEG"):
        image.write_bytes(b"")
    assert "none of the first images" in write_report([folder]).read_text()
