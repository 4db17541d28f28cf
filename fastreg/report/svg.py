"""Line and bar charts as inline SVG text, without scripts; axes take their colors from the style of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

COLORS = ("#2563c9", "#d1493f", "#23855f", "#8a5cc2", "#c07a12", "#4a6572")


class Line(NamedTuple):
    """A named series; points whose y is None or NaN are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: str
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

    def draw(self, body: Sequence[str], x_ticks: Sequence[float] | None = None) -> str:
        parts = [f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{escape(self.title())}">']
        for tick in ticks(*self.y, about=5 if self.height > 150 else 2):
            y = self.py(tick)
            parts.append(f'<path class="grid" d="M{self.left:g} {y:.1f}H{self.width - self.right:g}"/>')
            parts.append(f'<text class="tick" x="{self.left - 5:g}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        for tick in ticks(*self.x) if x_ticks is None else x_ticks:
            x, y = self.px(tick), self.height - self.bottom + 14
            parts.append(f'<text class="tick" x="{x:.1f}" y="{y:g}" text-anchor="middle">{tick:g}</text>')
        middle = (self.left + self.width - self.right) / 2
        at = f'x="{middle:g}" y="{self.height - 4:g}" text-anchor="middle"'
        parts.append(f'<text class="label" {at}>{escape(self.x_label)}</text>')
        parts.append(f'<text class="label" x="0" y="11">{escape(self.y_label)}</text>')
        return "".join([*parts, *body, "</svg>"])

    def title(self) -> str:
        return f"{self.y_label} against {self.x_label}"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """About ``about`` round numbers in [low, high]."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def lines(
    series: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    y: tuple[float, float] | None = None,
    x_ticks: Sequence[float] | None = None,
    width: float = 340,
    height: float = 200,
) -> str:
    """A line chart; ``y`` fixes the vertical range, else it spans the data from zero."""
    clean = [[(a, b) for a, b in zip(s.x, s.y) if b is not None and math.isfinite(b)] for s in series]
    points = [point for line in clean for point in line] or [(0.0, 0.0)]
    xs, ys = [a for a, _ in points], [b for _, b in points]
    left, right = (min(xs), max(xs)) if min(xs) < max(xs) else (xs[0] - 1, xs[0] + 1)  # a single point: in the middle
    frame = Frame((left, right), y or (min(0.0, *ys), max(ys) or 1.0), width, height, x_label, y_label)
    if x_ticks is None and left < min(xs):
        x_ticks = xs[:1]
    placed = [[(round(frame.px(a), 1), round(frame.py(b), 1)) for a, b in kept] for kept in clean]
    body = []
    for index, (line, kept, at) in enumerate(zip(series, clean, placed)):
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        # what lies on an earlier line is dashed, and a dot below later ones is larger: each color is seen
        dash = ' stroke-dasharray="5 5"' if any(set(at) <= set(earlier) for earlier in placed[:index]) else ""
        if path:
            body.append(
                f'<path class="line" stroke="{line.color}"{dash} d="M{path}"><title>{escape(line.name)}</title></path>'
            )
        if line.dots:
            for (_, value), point in zip(kept, at):
                radius = 2.4 + 1.6 * sum(point in later for later in placed[index + 1 :])
                body.append(
                    f'<circle r="{radius:.1f}" fill="{line.color}" cx="{point[0]:.1f}" cy="{point[1]:.1f}">'
                    f"<title>{escape(line.name)}: {value:.2f}</title></circle>"
                )
    return frame.draw(body, x_ticks)


def bars(
    heights: Sequence[float | None],
    *,
    x_label: str,
    y_label: str,
    y: tuple[float, float] | None = None,
    color: str = COLORS[0],
    behind: Sequence[float | None] = (),
    diagonal: bool = False,
    width: float = 340,
    height: float = 220,
) -> str:
    """Bars over equal bins of [0, 1]; ``behind`` draws a second, outlined set, ``diagonal`` the line y = x."""
    present = [h for h in (*heights, *behind) if h is not None]
    frame = Frame((0, 1), y or (0, max(present or [1]) or 1), width, height, x_label, y_label)
    body = [_bar(frame, i, len(heights), h, f'fill="{color}"') for i, h in enumerate(heights) if h]
    body += [_bar(frame, i, len(behind), h, 'class="outline"') for i, h in enumerate(behind) if h]
    if diagonal:
        top = min(1, frame.y[1])
        body.append(
            f'<path class="diagonal" d="M{frame.px(0):.1f} {frame.py(0):.1f}L{frame.px(top):.1f} {frame.py(top):.1f}"/>'
        )
    return frame.draw(body)


def _bar(frame: Frame, index: int, n: int, height: float, style: str) -> str:
    x0, x1, y0, y1 = frame.px(index / n), frame.px((index + 1) / n), frame.py(height), frame.py(0)
    return (
        f'<rect {style} x="{x0 + 0.6:.1f}" y="{y0:.1f}" width="{max(x1 - x0 - 1.2, 0.5):.1f}" '
        f'height="{max(y1 - y0, 0.5):.1f}"><title>{index / n:.2f} to {(index + 1) / n:.2f}: {height:.4g}</title></rect>'
    )
