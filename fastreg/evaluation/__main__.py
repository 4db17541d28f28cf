"""``python -m fastreg.evaluation``: write the table of suites into the README, from the rows of suites.py."""

from __future__ import annotations

from pathlib import Path

from fastreg.evaluation.suites import ROWS

README = Path(__file__).with_name("README.md")
MARKERS = "<!-- table of suites -->", "<!-- /table of suites -->"
DATA = {"imagenet": "ImageNet", "cifar": "CIFAR"}


def suite_table() -> str:
    """A Markdown table with a row per suite: name, description, and the data sets for which the paper reports it."""
    lines = ["| suite | measures | of the paper |", "|---|---|---|"]
    for name, row in ROWS.items():
        lines.append(f"| `{name}` | {row.about} | {', '.join(DATA[kind] for kind in row.paper)} |")
    return "\n".join(lines)


def rewritten() -> str:
    """The text of the README, with a new table between its markers."""
    start, _, rest = README.read_text().partition(MARKERS[0])
    _, _, end = rest.partition(MARKERS[1])
    return f"{start}{MARKERS[0]}\n\n{suite_table()}\n\n{MARKERS[1]}{end}"


if __name__ == "__main__":
    README.write_text(rewritten())
