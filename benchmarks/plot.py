"""A picture of a record: images per second of each kernel against the copy that is its limit."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from fastreg import runs
from fastreg.benchmarks.record import OURS, rows_of

_COLOURS = {OURS: "#1b6ca8", "torch.compile": "#e08e45", "torch eager": "#c9c9c9"}


def draw(record: dict[str, Any], path: Path) -> bool:
    """Write ``path`` (PNG) from the kernels suite; False when the record has no row with a limit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for suite, row in rows_of(record) if suite == "kernels" and row.limit_us and row.images]
    names = list(dict.fromkeys(row.name for row in rows))
    if not names:
        return False
    figure = Figure(figsize=(8, 0.6 + 0.55 * len(names)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for j, name in enumerate(names):
        of_name = {row.variant: row for row in rows if row.name == name}
        shown = [variant for variant in _COLOURS if variant in of_name]
        for k, variant in enumerate(shown):
            at = j + 0.24 * (k - (len(shown) - 1) / 2)
            axes.barh(
                at, of_name[variant].images_per_second, 0.22, color=_COLOURS[variant], label=variant if not j else None
            )
        limit = 1e6 * of_name[OURS].images / of_name[OURS].limit_us
        axes.plot(
            [limit, limit],
            [j - 0.42, j + 0.42],
            color="black",
            lw=1.6,
            label="a copy of the same bytes" if not j else None,
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("images per second")
    axes.set_title(f"{record['machine']['name']}: kernels against their limit", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    runs.atomic_write(path, buffer.getvalue())
    return True
