"""Rows, records and how they are shown."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from fastreg.benchmarks import record
from fastreg.benchmarks.compare import compare
from fastreg.benchmarks.record import Row, duration
from fastreg.benchmarks.report.readme_tables import suite_block
from fastreg.benchmarks.report.terminal import comparable, suite_text, table
from fastreg.benchmarks.timing import Timing
from fastreg.errors import InputError
from tests.benchmarks.report.made_up_record import gpu_record, row


def test_rates_follow_from_the_stored_times():
    one = Row("x", "fastreg", 50.0, 49.0, 51.0, 9, images=256, bytes=154_000_000, limit_us=45.0)
    assert one.images_per_second == pytest.approx(5.12e6)
    assert one.gigabytes_per_second == pytest.approx(3080)
    assert one.of_copy == pytest.approx(0.9)


def break_row(found: dict, **values) -> dict:
    found = copy.deepcopy(found)
    found["suites"]["loss"]["rows"][1] |= values
    return found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"us": "fast"}, "us is 'fast'"),
        ({"us": -1.0}, "between its quartiles"),
        ({"high": 1.0}, "between its quartiles"),
        ({"us": float("nan")}, "between its quartiles"),
        ({"speed": 3}, "exactly the keys"),
        ({"name": "loss 1024 x 1000 none"}, "repeats loss 1024 x 1000 none"),
    ],
)
def test_a_bad_row_is_named(values, message):
    with pytest.raises(InputError, match=f"suite loss, row 2.*{message}"):
        record.check(break_row(gpu_record(), **values))


@pytest.mark.parametrize("found", [[], {}, {"format": "other"}, {"format": record.FORMAT, "machine": {"slug": 1}}])
def test_a_file_that_is_no_record_is_refused(found):
    with pytest.raises(InputError, match=r"the record"):
        record.check(found)


def test_reading_a_missing_file_or_no_json(tmp_path):
    with pytest.raises(InputError, match="no benchmark record at"):
        record.read(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        record.read(tmp_path / "bad.json")


def test_merging_keeps_the_other_suites(tmp_path):
    path = tmp_path / "machine.json"
    whole = gpu_record()
    record.merge(path, whole)
    newer = {**whole, "suites": {"loss": record.suite("2026-02-02T00:00:00Z", 1.0, True, {}, [row("loss x", 5.0)], [])}}
    record.merge(path, newer)
    suites = json.loads(path.read_text())["suites"]
    assert suites["kernels"] == whole["suites"]["kernels"]
    assert [r["name"] for r in suites["loss"]["rows"]] == ["loss x"]


def test_fewer_than_two_peers_is_no_comparison():
    pair = [row("x", 10.0, 8), row("x", 12.0, 8, variant="timm")]
    assert not comparable(pair)
    assert "time / fastreg's" not in table(pair)[0]
    three = [*pair, row("x", 9.0, 8, variant="kornia"), row("x", 5.0, variant="copy")]
    assert comparable(three)
    header, cells = table(three)
    assert [line[header.index("time / fastreg's")] for line in cells] == ["", "1.20", "0.90", ""]  # losses stay in


def test_ratios_are_per_image_and_empty_columns_are_left_out():
    rows = [row("x", 80.0, 8), row("x", 30.0, 1, variant="a"), row("x", 20.0, 4, variant="b")]
    header, cells = table(rows)
    assert [line[-1] for line in cells] == ["", "3.00", "0.50"]
    assert "GB/s" not in header
    assert "launches" not in header


def test_ratios_of_rows_from_other_rounds_are_those_to_the_case_beside_them():
    """The machine was slower by half in the rounds of a."""
    beside = {"beside": "plain / fastreg", "beside_us": 100.0}
    rows = [row("x", 110.0, 8, **beside), row("x", 180.0, 8, variant="a", **beside | {"beside_us": 150.0})]
    rows.append(row("x", 99.0, 8, variant="b", **beside | {"beside": "other / fastreg"}))
    assert [line[-1] for line in table(rows)[1]] == ["", "1.09", "0.90"]


def test_the_shown_table_names_absent_variants():
    found = gpu_record()
    absent = [record.Absent("loss x", "Liger", "liger_kernel is not installed")]
    rows = [row("loss x", 10.0, 8)]
    found["suites"]["loss"] = record.suite("2026-01-01T00:00:00Z", 1.0, True, {}, rows, absent)
    text = suite_text("loss", found)
    assert "no comparison" in text
    assert "absent: Liger in loss x: liger_kernel is not installed" in text


def test_durations():
    assert [duration(v) for v in (0.5, 33.333, 4_200.0, 2_340_000.0)] == ["0.5 us", "33.3 us", "4.2 ms", "2.34 s"]


def test_a_row_of_a_timing_keeps_five_digits():
    one = Row.of("x", "fastreg", Timing(12.345678, 12.0, 13.0, 7, "graph"), images=4, more={"launches": 1})
    assert (one.us, one.runs, one.more) == (12.346, 7, {"how": "graph", "launches": 1})


OLD = Path(__file__).parent / "old_record.json"


def test_an_old_record_is_read_shown_compared_and_tabulated(tmp_path):
    """Of commit 658d2d8, before a row kept the time of its base."""
    old = record.read(OLD)
    assert {suite for suite, _ in record.rows_of(old)} == {
        "kernels",
        "loss",
        "throughput",
        "corruptions",
        "loaders",
        "eval",
    }
    for suite in old["suites"]:
        assert "fastreg" in suite_text(suite, old)
        assert "AMD EPYC" in suite_block(suite, [old])
    assert any(c.text.startswith("throughput: step none: time at most 1.03 x bare loop") for c in compare(old, old))
    record.merge(tmp_path / "copy.json", old)
    assert record.read(tmp_path / "copy.json") == old
