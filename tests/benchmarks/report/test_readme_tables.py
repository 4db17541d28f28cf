"""The generated tables are those of the committed records; the scaling page's arithmetic."""

from __future__ import annotations

import pytest

from fastreg.benchmarks.report import readme_tables as tables
from fastreg.benchmarks.report import scaling
from fastreg.recipes import PAPER
from tests.benchmarks.report.made_up_record import gpu_record, row


def test_the_readmes_are_up_to_date():
    made = tables.blocks(tables.records())
    for path in tables.FILES:
        text = path.read_text()
        assert tables.rewritten(text, made, path.name) == text, (
            f"run: python -m fastreg.benchmarks.report.readme_tables ({path.name})"
        )


def test_the_pages_hold_every_block():
    text = "".join(path.read_text() for path in tables.FILES)
    for name in tables.blocks(tables.records()):
        assert f"<!-- bench:{name} -->" in text


def test_only_the_blocks_change_and_an_unknown_one_is_an_error():
    text = "before\n<!-- bench:loss -->\nold\n<!-- /bench:loss -->\nafter\n"
    assert tables.rewritten(text, {"loss": "new"}) == text.replace("old", "new")
    with pytest.raises(KeyError, match="bench:loss"):
        tables.rewritten(text, {"kernels": "new"})


def test_what_is_not_measured_says_so():
    block = tables.targets_block([])
    assert block.count("not yet measured") == block.count("\n") - 1
    assert "not yet measured" in tables.suite_block("kernels", [])
    assert "augment mixup | at most 45 us | 40 us" in tables.targets_block([gpu_record()])


def test_a_gpu_record_fills_its_tables():
    block = tables.suite_block("kernels", [gpu_record()])
    assert "**NVIDIA H200, torch 2.13.0, 2026-01-01**" in block
    assert "not yet measured" not in block
    assert "| augment mixup | fastreg | 6,400,000 |" in block


def test_corruptions_are_one_line_each():
    rows = [
        row("corrupt fog 1", 1000.0, 10),
        row("corrupt fog 2", 3000.0, 10),
        row("corrupt fog 2", 4e3, 1, variant="p"),
    ]
    assert tables.corruption_table(rows).splitlines()[-1] == "| fog | 3,333 | 5,000 | 250 |"


def test_costs_are_the_arithmetic_that_the_page_shows():
    empty = scaling.scaling_block([])
    assert empty.count("\n| ") == len(PAPER) + 3  # header, rule, ImageNet-C
    assert "$" not in empty.split("---:")[-1]
    found = gpu_record()
    block = scaling.scaling_block([found])
    rate = 256 / 0.0431  # Mixup's step
    hours = 300 * (1_281_167 / rate + 50_000 / (3 * rate)) / 3600
    line = next(line for line in block.splitlines() if line.startswith("| imagenet/mixup+ls |"))
    assert f"| {rate:,.0f} | {hours:,.2g} | {hours / 8:,.2g} | ${3 * hours:,.0f} |" in line
    assert "not yet measured" in next(line for line in block.splitlines() if line.startswith("| cifar100/mixup |"))
    assert "not yet measured" in block.splitlines()[-1]  # one condition is not fifteen
