"""The cells of a heat map."""

from __future__ import annotations


def heat(percent: float | None) -> dict[str, str]:
    """A cell from pale to dark red by a percentage; text is black or white, whichever has more contrast."""
    if percent is None:
        return {"text": "–", "style": ""}
    share = min(max(percent / 100, 0.0), 1.0)
    stops = ((250, 246, 240), (240, 170, 120), (122, 24, 36))
    low, high, t = (stops[0], stops[1], share * 2) if share < 0.5 else (stops[1], stops[2], share * 2 - 1)
    r, g, b = (round(a + (c - a) * t) for a, c in zip(low, high))
    light = sum(weight * linear(channel) for weight, channel in zip((0.2126, 0.7152, 0.0722), (r, g, b)))
    ink = "#fff" if 1.05 / (light + 0.05) > (light + 0.05) / 0.05 else "#000"  # WCAG's contrast, 4.6 or more
    return {"text": f"{percent:.0f}", "style": f"background:rgb({r},{g},{b});color:{ink}"}


def linear(channel: float) -> float:
    """Linear light in [0, 1] of an 8-bit sRGB value."""
    share = channel / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
