"""Plot of a record: images per second of each kernel against its copy limit."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from fastreg import files
from fastreg.benchmarks.record import OURS, rows_of

_COLORS = {OURS: "#1b6ca8", "torch.compile": "#e08e45", "torch eager": "#9a9a9a"}


def draw(record: dict[str, Any], path: Path) -> bool:
    """Write the plot of the kernels suite.

    Args:
        record: a benchmark record.
        path: the PNG file.

    Returns:
        False when the record has no row with a limit, so nothing was written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for suite, row in rows_of(record) if suite == "kernels" and row.limit_us and row.images]
    names = list(dict.fromkeys(row.name for row in rows))
    if not names:
        return False
    figure = Figure(figsize=(8, 1.2 + 0.36 * len(names)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for j, name in enumerate(names):
        of_name = {row.variant: row for row in rows if row.name == name}
        rates = {variant: row.images_per_second for variant, row in of_name.items() if variant in _COLORS}
        limit = 1e6 * of_name[OURS].images / of_name[OURS].limit_us
        axes.plot([min(rates.values()), limit], [j, j], color="#dddddd", lw=1, zorder=0)
        for variant, rate in rates.items():  # points, since a bar means nothing on a logarithmic axis
            axes.plot(rate, j, "o", ms=7, color=_COLORS[variant], label=variant if not j else None)
        limited = "a copy of the same bytes" if not j else None
        axes.plot([limit, limit], [j - 0.3, j + 0.3], color="black", lw=1.8, label=limited)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("images per second")
    route = "" if record["machine"]["device"] == "cuda" else " (the plain reference route)"
    axes.set_title(f"{record['machine']['name']}: kernels against their limit{route}", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    files.atomic_write(path, buffer.getvalue())
    return True
