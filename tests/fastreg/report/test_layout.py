"""The layout of the report: contrast, labels, and visible curves where several coincide."""

import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import fastreg.report
from fastreg.files import write_json
from fastreg.report import figures, svg, write_report
from tests.fastreg.report.make_runs import make_run

CSS = (Path(fastreg.report.__file__).parent / "report.css").read_text()


THEMES = {
    theme: dict(re.findall(r"--([\w-]+): (#\w{6});", text))
    for theme, text in zip(("light", "dark"), re.findall(r":root \{.*?\}", CSS, re.DOTALL))
}
# Machado, Oliveira and Fernandes (2009): linear RGB as seen without one kind of cone
VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.412456, 0.357576, 0.180437], [0.212673, 0.715152, 0.072175], [0.019334, 0.119192, 0.950304]])


def linear(color):
    """Linear RGB of #rgb, #rrggbb or rgb(r,g,b), by WCAG 2.1."""
    if color.startswith("rgb"):
        channels = [int(word) for word in re.findall(r"\d+", color)]
    else:
        digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
        channels = [int(digits[i : i + 2], 16) for i in (0, 2, 4)]
    return np.array([c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels])


def contrast(one, other):
    low, high = sorted(float(linear(color) @ (0.2126, 0.7152, 0.0722)) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    """CIELAB of linear RGB with the white of sRGB."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    t = to_xyz @ np.clip(rgb, 0, 1) / (0.95047, 1, 1.08883)
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_have_contrast_to_their_background(theme):
    colors = THEMES[theme]
    for name in ("ink", "soft", "faint"):
        assert contrast(colors[name], colors["paper"]) >= 4.5, name
    assert contrast(colors["badge-ink"], colors["badge"]) >= 4.5
    assert contrast(colors["ink"], colors["note"]) >= 4.5
    for index in range(svg.N_COLORS):
        assert contrast(colors[f"c{index}"], colors["paper"]) >= 3, index


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_the_colors_of_lines_differ_in_any_color_vision(theme, vision):
    seen = [lab(VISION[vision] @ linear(THEMES[theme][f"c{index}"])) for index in range(svg.N_COLORS)]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 35


def test_twelve_runs_have_twelve_styles():
    pairs = re.findall(r"\.s(\d+), \.s(\d+) \{ --run: var\(--c(\d)\); \}", CSS)
    assert pairs == [(str(i), str(i + svg.N_COLORS), str(i)) for i in range(svg.N_COLORS)]
    for solid, dotted, _ in pairs:
        one, other = svg.key(int(solid)), svg.key(int(dotted))
        assert "<circle" in one
        assert "stroke-dasharray" not in one
        assert "<rect" in other
        assert "stroke-dasharray" in other


@pytest.mark.parametrize("error", range(101))
def test_every_cell_of_a_heat_map_has_contrast(error):
    background, ink = re.fullmatch(r"background:(.*);color:(.*)", figures.heat(error)["style"]).groups()
    assert contrast(background, ink) >= 4.5


def test_the_run_column_is_sticky_and_names_methods_sample_and_n(tmp_path):
    page = write_report([make_run(tmp_path, "small", reg="cutmix", ls=0.1, sample=True)]).read_text()
    row = re.search(r'<tr class="run"><th>(.*?)</th>', page)[1]
    assert row == "small<small>cutmix + LS 0.1</small><small>sample, imagenet val, <span>n = 100</span></small>"
    assert re.search(r"\.scores th:first-child \{ position: sticky; left: 0;", CSS)


def charts(report):
    """The label and the SVG text of each chart."""
    return re.findall(r'(<svg viewBox[^>]* aria-label="([^"]*)">.*?</svg>)', report.read_text())


def test_every_chart_names_both_axes_and_describes_its_content(tmp_path):
    report = write_report([make_run(tmp_path, "c", dataset="cifar100")])
    found = charts(report)
    assert len(found) == 2 + 15 + 2 + 1  # training, corruptions, calibration, out of distribution
    for chart, _ in found:
        assert len(re.findall(r'class="label"[^>]*>([^<]+)<', chart)) == 2
    alts = [alt for _, alt in found]
    assert len(set(alts)) == len(alts)
    assert "Training loss by epoch: c from 2 to 1.4" in alts
    assert "cifar-c, gaussian noise: top-1 error by severity: c from 20 to 55" in alts
    assert "Reliability diagram of c: accuracy by confidence, expected calibration error 3.00 %" in alts
    assert "Scores of c on uniform: detection error 20.00, AUROC 85.00" in alts


def test_curves_that_coincide_are_all_seen():
    x, y = [0, 1, 2], [3.0, 2.0, 1.0]
    same = [svg.Line(name, x, y, series, True) for name, series in (("a", 1), ("b", 2))]
    other = svg.Line("c", x, [1.0, 2.0, 3.0], 3, True)
    chart = svg.lines([*same, other], x_label="x", y_label="y", alt="")
    dashes = re.findall(r'class="line s\d"( stroke-dasharray="[\d ]+")? d=', chart)
    assert [bool(dash) for dash in dashes] == [False, True, False]
    radii = {(s, x): float(r) for s, r, x in re.findall(r'<circle class="dot (s\d)" r="(.*?)" cx="(.*?)"', chart)}
    left, middle, _ = sorted({float(x) for _, x in radii})
    assert radii["s1", f"{left:.1f}"] > radii["s2", f"{left:.1f}"] == radii["s3", f"{left:.1f}"]
    at = [radii[series, f"{middle:.1f}"] for series in ("s1", "s2", "s3")]
    assert at == sorted(at, reverse=True)
    assert len(set(at)) == 3


def test_a_single_point_stands_in_the_middle_of_its_axis():
    chart = svg.lines([svg.Line("a", [1], [3.0], 0, True)], x_label="epoch", y_label="loss", alt="")
    at = float(re.search(r'cx="(.*?)"', chart)[1])
    assert at == pytest.approx((svg.Frame.left + 340 - svg.Frame.right) / 2, abs=0.1)
    assert re.findall(r'text-anchor="middle">(\d+)<', chart) == ["1"]


@pytest.mark.parametrize("top", [0.93, 1.0, 7.31, 99.9, 309.2, 921.0])
@pytest.mark.parametrize("height", [140, 200])
def test_no_line_runs_above_the_top_grid_line(top, height):
    line = svg.Line("a", [1, 2], [top / 3, top], 0)
    chart = svg.lines([line], x_label="x", y_label="y", alt="", height=height)
    grid = [float(y) for y in re.findall(r'class="grid" d="M\S+ (\S+?)H', chart)]
    points = [float(y) for y in re.findall(r"[ML]\S+ ([\d.]+)", re.search(r'class="line[^>]* d="([^"]*)"', chart)[1])]
    assert min(points) >= min(grid) - 0.05
    assert svg.top_tick(0, top, 5) < 2.1 * top


@pytest.mark.parametrize("epochs", [2, 3, 5, 8, 90, 300])
def test_epochs_are_whole_numbers_on_axes(epochs):
    line = svg.Line("a", [1, epochs], [2.0, 1.0], 0)
    chart = svg.lines([line], x_label="epoch", y_label="loss", alt="", whole_x=True)
    ticks = re.findall(r'text-anchor="middle">([^<]+)</text>', chart)[:-1]  # the last is the label
    assert len(ticks) >= 2
    assert all(tick.isdigit() for tick in ticks)


def test_severity_charts_begin_at_the_clean_images_only_if_they_were_measured(tmp_path):
    first = make_run(tmp_path, "first")
    assert ("By severity; 0 is the clean images" in write_report([first]).read_text()) is True
    card = json.loads((first / "scorecard.json").read_text())
    del card["suites"]["clean"]
    write_json(first / "scorecard.json", card)
    report = write_report([first])
    assert "clean images<" not in report.read_text()
    found = [chart for chart, alt in charts(report) if "by severity" in alt]
    assert len(found) == 15
    for chart in found:
        ticks = re.findall(r'class="tick"[^>]*text-anchor="middle">(\d)<', chart)
        assert ticks == ["1", "2", "3", "4", "5"]


def test_legends_name_the_runs_and_calibration_has_their_colors_on_one_axis(tmp_path):
    runs = [make_run(tmp_path, name) for name in ("a", "b", "c", "d")]
    card = json.loads((runs[1] / "scorecard.json").read_text())
    bins = card["suites"]["clean"]["results"]["clean"]["bins"]
    bins["count"] = [0] * 19 + [100]
    write_json(runs[1] / "scorecard.json", card)
    report = write_report(runs, tmp_path / "r.html")
    source = report.read_text()
    legends = re.findall(r'<p class="names">(.*?)</p>', source)
    assert len(legends) == 2  # training, severity
    for legend in legends:
        assert re.findall(r"</svg>([^<]+)</span>", legend) == ["a", "b", "c", "d"]
        assert re.findall(r'class="line (s\d)"', legend) == ["s0", "s1", "s2", "s3"]
    assert "<title>fastreg: 4 runs</title>" in source
    assert "<h1>4 runs</h1>" in source
    histograms = [(chart, alt) for chart, alt in charts(report) if alt.startswith("Confidence histogram")]
    for index, (chart, alt) in enumerate(histograms):
        assert f"of {'abcd'[index]}:" in alt
        assert set(re.findall(r'class="bar (s\d)"', chart)) == {f"s{index}"}
    scales = [re.findall(r'class="tick"[^>]*text-anchor="end">([^<]+)<', chart) for chart, _ in histograms]
    assert len(scales) == 4
    assert all(scale == scales[0] for scale in scales)
    assert scales[0][-1] == "1"


def test_more_runs_than_styles_have_a_chart_each(tmp_path):
    names = [f"r{index:02}" for index in range(svg.N_SERIES + 1)]
    report = write_report([make_run(tmp_path, name) for name in names], tmp_path / "r.html")
    assert '<p class="names">' not in report.read_text()
    for about in ("Training loss by epoch", "imagenet-c: mean top-1 error of the corruptions by severity"):
        found = [(chart, alt) for chart, alt in charts(report) if alt.startswith(about)]
        assert [re.search(r": (r\d+) from", alt)[1] for _, alt in found] == names
        for chart, _ in found:
            assert chart.count('class="line other"') == svg.N_SERIES
            assert len(re.findall(r'class="line s\d+"', chart)) == 1


def test_narrow_reports_show_that_the_table_scrolls(tmp_path):
    report = write_report([make_run(tmp_path, "a")]).read_text()
    assert report.count('<p class="hint">The table scrolls sideways') == report.count('<table class="scores">') == 2
    narrow = CSS[CSS.index("@media (max-width: 600px)") :]
    assert ".hint { display: block; }" in narrow
    assert ".hint { display: none;" in CSS


def test_the_caption_names_averaged_weights(tmp_path):
    folder = make_run(tmp_path, "a")
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    averaged = [row | {"ema_val_top1_error": row["val_top1_error"] - 1} for row in rows]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in averaged))
    assert "error of the averaged weights 45.00 at the best epoch (5)" in write_report([folder]).read_text()
