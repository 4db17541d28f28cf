"""The generated tables are those of the committed records; the arithmetic of SCALING.md."""

from __future__ import annotations

import pytest

from fastreg.benchmarks.report import readme_tables as tables
from fastreg.benchmarks.report import scaling
from fastreg.benchmarks.suites import benchmarks
from fastreg.recipes import PAPER
from tests.benchmarks.report.made_up_record import gpu_record, row


def test_the_readmes_are_up_to_date():
    made = tables.blocks(tables.records())
    for path in tables.FILES:
        text = path.read_text()
        assert tables.rewritten(text, made, path.name) == text, (
            f"run: python -m fastreg.benchmarks.report.readme_tables ({path.name})"
        )


def test_the_readmes_contain_every_block():
    text = "".join(path.read_text() for path in tables.FILES)
    for name in tables.blocks(tables.records()):
        assert f"<!-- bench:{name} -->" in text


def test_only_the_blocks_change_and_an_unknown_one_is_an_error():
    text = "before\n<!-- bench:loss -->\nold\n<!-- /bench:loss -->\nafter\n"
    assert tables.rewritten(text, {"loss": "new"}) == text.replace("old", "new")
    with pytest.raises(KeyError, match="bench:loss"):
        tables.rewritten(text, {"kernels": "new"})


def test_missing_measurements_are_noted_once():
    for block in (tables.targets_block([]), scaling.scaling_block([]), tables.suite_block("kernels", [])):
        assert block.lower().count("not yet measured") == 1
    assert "| augment mixup | H200 | at most 40 us |" in tables.targets_block([])
    block = tables.targets_block([gpu_record()])
    assert "augment mixup | H200 | at most 40 us | 40 us" in block
    assert "augment mixup | H100 | at most 57 us |  |" in block  # another card's
    assert block.endswith("Empty cells: not yet measured.")
    for path in tables.FILES:
        assert path.read_text().lower().count("not yet measured") <= 1, path


def test_the_suites_are_listed_with_their_help():
    for name, row_ in benchmarks().items():
        assert f"| `{name}` | {row_.help} |" in tables.suites_block()


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


def test_costs_follow_the_formula_of_scaling_md():
    empty = scaling.scaling_block([])
    assert empty.count("\n| ") == len(PAPER) + 3  # header, rule, ImageNet-C
    assert "$" not in empty
    found = gpu_record()
    block = scaling.scaling_block([found])
    rate = 256 / 0.0431  # Mixup's step
    hours = 300 * (1_281_167 / rate + 50_000 / (3 * rate)) / 3600
    line = next(line for line in block.splitlines() if line.startswith("| imagenet/mixup+ls |"))
    assert f"| {rate:,.0f} | {hours:,.2g} | {hours / 8:,.2g} | ${3 * hours:,.0f} |" in line
    for name in ("cifar100/mixup", "ImageNet-C, 75 conditions, ResNet-50"):  # one condition is not fifteen
        line = next(line for line in block.splitlines() if line.startswith(f"| {name} |"))
        assert [cell.strip() for cell in line.split("|")[3:7]] == [""] * 4
    assert block.splitlines()[-1] == "Empty cells: not yet measured."
