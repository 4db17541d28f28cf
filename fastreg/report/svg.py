"""Line and bar charts as inline SVG text, without scripts.

The style of the page (report.css) gives the colors: series n has class ``s<n>``. Series of one color differ in dash and
marker, so that twelve can be distinguished, in any color vision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

N_COLORS = 6  # --c0 to --c5 of report.css
N_SERIES = 2 * N_COLORS
DOTTED = "1 4"


class Line(NamedTuple):
    """A named line; points whose y is None or NaN are left out.

    Args:
        name: shown as its tooltip.
        x: of the points.
        y: of the points.
        series: below N_SERIES; None: a gray line in the background.
        dots: whether each point has a marker.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    series: int | None
    dots: bool = False


class Frame:
    """The axes of one chart: maps data to a view box of ``width`` by ``height``."""

    left, right, top, bottom = 36.0, 10.0, 24.0, 34.0

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], width: float, height: float, x_label: str, y_label: str
    ):
        self.x, self.y, self.width, self.height = x, y, width, height
        self.x_label, self.y_label = x_label, y_label

    def px(self, x: float) -> float:
        low, high = self.x
        return self.left + (x - low) / ((high - low) or 1) * (self.width - self.left - self.right)

    def py(self, y: float) -> float:
        low, high = self.y
        return self.height - self.bottom - (y - low) / ((high - low) or 1) * (self.height - self.top - self.bottom)

    def draw(self, body: Sequence[str], x_ticks: Sequence[float], alt: str) -> str:
        text = [f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{escape(alt)}">']
        for tick in ticks(*self.y, about=y_ticks(self.height)):
            y = self.py(tick)
            text.append(f'<path class="grid" d="M{self.left:g} {y:.1f}H{self.width - self.right:g}"/>')
            text.append(f'<text class="tick" x="{self.left - 5:g}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        for tick in x_ticks:
            x, y = self.px(tick), self.height - self.bottom + 14
            text.append(f'<text class="tick" x="{x:.1f}" y="{y:g}" text-anchor="middle">{tick:g}</text>')
        middle = (self.left + self.width - self.right) / 2
        at = f'x="{middle:g}" y="{self.height - 4:g}" text-anchor="middle"'
        text.append(f'<text class="label" {at}>{escape(self.x_label)}</text>')
        text.append(f'<text class="label" x="0" y="11">{escape(self.y_label)}</text>')
        return "".join([*text, *body, "</svg>"])


def y_ticks(height: float) -> int:
    """Number of ticks of a vertical axis, about."""
    return 5 if height > 150 else 2


def tick_step(low: float, high: float, about: int, whole: bool = False) -> float:
    """A round distance of about ``about`` ticks in [low, high]; ``whole``: a whole number."""
    step = 10.0 ** math.floor(math.log10((high - low) / about))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= about)
    return max(step, 1.0) if whole else step


def ticks(low: float, high: float, about: int = 5, whole: bool = False) -> list[float]:
    """About ``about`` round numbers in [low, high]; ``whole``: whole numbers."""
    if not high > low:
        return [low]
    step = tick_step(low, high, about, whole)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def top_tick(low: float, high: float, about: int) -> float:
    """The first tick at or above ``high``, so that no line runs above the top grid line."""
    if not high > low:
        return low + 1
    while True:
        step = tick_step(low, high, about)
        top = math.ceil(high / step - 1e-9) * step
        if top <= high * (1 + 1e-9) or tick_step(low, top, about) == step:
            return round(top, 10)
        high = top


def lines(
    series: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    alt: str,
    y: tuple[float, float] | None = None,
    x_ticks: Sequence[float] | None = None,
    whole_x: bool = False,
    width: float = 340,
    height: float = 200,
) -> str:
    """A line chart.

    Args:
        series: the lines; later ones are drawn above earlier ones.
        x_label: label of the horizontal axis.
        y_label: label of the vertical axis.
        alt: text alternative of the chart.
        y: vertical range; None: from zero to a tick above all points.
        x_ticks: ticks of the horizontal axis; None: round numbers.
        whole_x: ticks at whole numbers only.
        width: of the view box.
        height: of the view box.
    """
    clean = [[(a, b) for a, b in zip(s.x, s.y) if b is not None and math.isfinite(b)] for s in series]
    points = [point for line in clean for point in line] or [(0.0, 0.0)]
    xs, ys = [a for a, _ in points], [b for _, b in points]
    left, right = (min(xs), max(xs)) if min(xs) < max(xs) else (xs[0] - 1, xs[0] + 1)  # a single point: in the middle
    low = min(0.0, *ys)
    y_range = y or (low, top_tick(low, max(ys), y_ticks(height)))
    frame = Frame((left, right), y_range, width, height, x_label, y_label)
    if x_ticks is None:
        x_ticks = xs[:1] if left < min(xs) else ticks(left, right, whole=whole_x)
    placed = [[(round(frame.px(a), 1), round(frame.py(b), 1)) for a, b in kept] for kept in clean]
    body = []
    for index, (line, kept, at) in enumerate(zip(series, clean, placed)):
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        style = "other" if line.series is None else f"s{line.series}"
        dash = DOTTED if line.series is not None and line.series >= N_COLORS else ""
        if any(set(at) <= set(earlier) for earlier in placed[:index]):  # the line below stays visible in the gaps
            dash = dash or "5 5"
        if path:
            dashed = f' stroke-dasharray="{dash}"' if dash else ""
            name = escape(line.name)
            body.append(f'<path class="line {style}"{dashed} d="M{path}"><title>{name}</title></path>')
        for (_, value), point in zip(kept, at) if line.dots else ():
            radius = 2.4 + 1.6 * sum(point in later for later in placed[index + 1 :])  # larger below later lines
            body.append(marker(line.series, *point, radius, f"{line.name}: {value:.2f}"))
    return frame.draw(body, x_ticks, alt)


def marker(series: int | None, x: float, y: float, radius: float, title: str = "") -> str:
    """A point: a circle, for dotted series a square."""
    style = f'class="dot {"other" if series is None else f"s{series}"}"'
    text = f"<title>{escape(title)}</title>" if title else ""
    if series is not None and series >= N_COLORS:
        at = f'x="{x - radius:.1f}" y="{y - radius:.1f}" width="{2 * radius:.1f}" height="{2 * radius:.1f}"'
        return f"<rect {style} {at}>{text}</rect>"
    return f'<circle {style} r="{radius:.1f}" cx="{x:.1f}" cy="{y:.1f}">{text}</circle>'


def key(series: int) -> str:
    """The legend key of a series: a piece of its line with a marker."""
    dash = f' stroke-dasharray="{DOTTED}"' if series >= N_COLORS else ""
    line = f'<path class="line s{series}"{dash} d="M1 6H27"/>'
    return f'<svg class="key" viewBox="0 0 28 12" aria-hidden="true">{line}{marker(series, 14, 6, 3)}</svg>'


def bars(
    heights: Sequence[float | None],
    *,
    x_label: str,
    y_label: str,
    alt: str,
    series: int = 0,
    y: tuple[float, float] | None = None,
    behind: Sequence[float | None] = (),
    diagonal: bool = False,
    width: float = 340,
    height: float = 220,
) -> str:
    """Bars over equal bins of [0, 1].

    Args:
        heights: of the bars.
        x_label: label of the horizontal axis.
        y_label: label of the vertical axis.
        alt: text alternative of the chart.
        series: gives the color.
        y: vertical range; None: from zero to a tick above all bars.
        behind: heights of outlined bars.
        diagonal: draw the line y = x.
        width: of the view box.
        height: of the view box.
    """
    present = [h for h in (*heights, *behind) if h is not None]
    y_range = y or (0, top_tick(0, max(present or [1]), y_ticks(height)))
    frame = Frame((0, 1), y_range, width, height, x_label, y_label)
    body = [_bar(frame, i, len(heights), h, f"bar s{series}") for i, h in enumerate(heights) if h]
    body += [_bar(frame, i, len(behind), h, "outline") for i, h in enumerate(behind) if h]
    if diagonal:
        top = min(1, frame.y[1])
        body.append(
            f'<path class="diagonal" d="M{frame.px(0):.1f} {frame.py(0):.1f}L{frame.px(top):.1f} {frame.py(top):.1f}"/>'
        )
    return frame.draw(body, ticks(0, 1), alt)


def _bar(frame: Frame, index: int, n: int, height: float, style: str) -> str:
    x0, x1, y0, y1 = frame.px(index / n), frame.px((index + 1) / n), frame.py(height), frame.py(0)
    return (
        f'<rect class="{style}" x="{x0 + 0.6:.1f}" y="{y0:.1f}" width="{max(x1 - x0 - 1.2, 0.5):.1f}" '
        f'height="{max(y1 - y0, 0.5):.1f}"><title>{index / n:.2f} to {(index + 1) / n:.2f}: {height:.4g}</title></rect>'
    )
