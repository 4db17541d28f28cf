"""The layout of the page: contrast, labels, and visible curves where several coincide."""

import re
from pathlib import Path

import pytest

import fastreg.report
from fastreg.report import figures, svg, write_report
from tests.fastreg.report.make_runs import make_run

CSS = (Path(fastreg.report.__file__).parent / "report.css").read_text()


def light(color):
    """Relative luminance by WCAG 2.1 of #rgb, #rrggbb or rgb(r,g,b)."""
    if color.startswith("rgb"):
        channels = [int(word) for word in re.findall(r"\d+", color)]
    else:
        digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
        channels = [int(digits[i : i + 2], 16) for i in (0, 2, 4)]
    r, g, b = (c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, other):
    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_gray_has_contrast_to_its_background():
    colors = dict(re.findall(r"--(\w+): (#\w+);", CSS))
    for name in ("ink", "soft", "faint"):
        assert contrast(colors[name], colors["paper"]) >= 4.5, name
    assert contrast("#7a4b00", "#fbe7c2") >= 4.5  # the badge
    assert contrast(colors["ink"], "#fdf8ee") >= 4.5  # notes


@pytest.mark.parametrize("error", range(101))
def test_every_cell_of_a_heat_map_has_contrast(error):
    background, ink = re.fullmatch(r"background:(.*);color:(.*)", figures.heat(error)["style"]).groups()
    assert contrast(background, ink) >= 4.5


def test_the_run_stays_in_sight_and_says_its_methods_sample_and_n(tmp_path):
    page = write_report([make_run(tmp_path, "small", reg="cutmix", ls=0.1, sample=True)]).read_text()
    row = re.search(r'<tr class="run"><th>(.*?)</th>', page)[1]
    assert row == "small<small>cutmix + LS 0.1</small><small>sample, imagenet val, n = 100</small>"
    assert re.search(r"\.scores th:first-child \{ position: sticky; left: 0;", CSS)


def test_every_chart_names_both_axes(tmp_path):
    page = write_report([make_run(tmp_path, "c", dataset="cifar100")]).read_text()
    charts = re.findall(r"<svg.*?</svg>", page)
    assert len(charts) == 2 + 15 + 2 + 1  # training, corruptions, calibration, out of distribution
    for chart in charts:
        labels = re.findall(r'class="label"[^>]*>([^<]+)<', chart)
        assert len(labels) == 2
        assert f"{labels[1]} against {labels[0]}" in chart


def test_curves_that_coincide_are_all_seen():
    x, y = [0, 1, 2], [3.0, 2.0, 1.0]
    same = [svg.Line(name, x, y, color, True) for name, color in (("a", "#111111"), ("b", "#222222"))]
    other = svg.Line("c", x, [1.0, 2.0, 3.0], "#333333", True)
    chart = svg.lines([*same, other], x_label="x", y_label="y")
    assert [bool(dash) for dash in re.findall(r'stroke="#\d+"( stroke-dasharray="[\d ]+")? d=', chart)] == [
        False,
        True,
        False,
    ]
    radii = {(c, x): float(r) for r, c, x in re.findall(r'<circle r="(.*?)" fill="(.*?)" cx="(.*?)"', chart)}
    left, middle, _ = sorted({float(x) for _, x in radii})
    assert radii["#111111", f"{left:.1f}"] > radii["#222222", f"{left:.1f}"] == radii["#333333", f"{left:.1f}"]
    at = [radii[color, f"{middle:.1f}"] for color in ("#111111", "#222222", "#333333")]
    assert at == sorted(at, reverse=True)
    assert len(set(at)) == 3


def test_a_single_point_stands_in_the_middle_of_its_axis():
    chart = svg.lines([svg.Line("a", [1], [3.0], "#111111", True)], x_label="epoch", y_label="loss")
    at = float(re.search(r'cx="(.*?)"', chart)[1])
    assert at == pytest.approx((svg.Frame.left + 340 - svg.Frame.right) / 2, abs=0.1)
    assert re.findall(r'text-anchor="middle">(\d+)<', chart) == ["1"]
