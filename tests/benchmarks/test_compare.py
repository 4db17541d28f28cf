"""Comparison with targets: a record that meets them passes; with one time doubled it fails and the row is named."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from fnmatch import fnmatchcase

import pytest

from fastreg.benchmarks import RESULTS, compare, record
from fastreg.benchmarks.record import OURS
from fastreg.benchmarks.targets import CPU, CUDA, EXPLAINED, H100, H200, TARGETS, Target
from tests.benchmarks.report.made_up_record import gpu_record, row
from tests.support import ROOT, environment


def ours(found: dict) -> list[dict]:
    return [row for suite in found["suites"].values() for row in suite["rows"] if row["variant"] == OURS]


def doubled(found: dict, name: str) -> dict:
    changed = copy.deepcopy(found)
    (row,) = [row for row in ours(changed) if row["name"] == name]
    for key in ("us", "low", "high"):
        row[key] *= 2
    return changed


def test_a_record_that_meets_every_target_passes():
    found = gpu_record()
    compared = compare.compare(found)
    assert len(compared) >= len([t for t in TARGETS if t.applies(found["machine"])])
    assert [c.text for c in compared if c.failed] == []


@pytest.mark.parametrize("name", [row["name"] for row in ours(gpu_record())])
def test_one_time_doubled_fails_and_names_the_row(name):
    found = gpu_record()
    of_others = [t.against.rpartition(" / ")[0] for t in TARGETS]
    failed = [c.text for c in compare.compare(doubled(found, name), found) if c.failed]
    assert any(f": {name}: " in text for text in failed), failed
    assert name in of_others or all(f": {name}: " in text for text in failed), failed


def test_without_an_earlier_record_the_targets_alone_find_a_doubled_time():
    failed = [c.text for c in compare.compare(doubled(gpu_record(), "augment mixup")) if c.failed]
    assert any("augment mixup: at most 40 us" in text for text in failed)
    assert any("augment mixup: at least 90 % of a copy" in text for text in failed)


def test_as_a_command_it_exits_1_and_names_the_row(tmp_path, capsys):
    good, bad, torn = (tmp_path / f"{name}.json" for name in ("good", "bad", "torn"))
    good.write_text(json.dumps(gpu_record()))
    bad.write_text(json.dumps(doubled(gpu_record(), "fgsm_step")))
    edited = gpu_record()
    ours(edited)[0]["us"] *= 2  # the median alone: no longer between its quartiles
    torn.write_text(json.dumps(edited))

    words = [sys.executable, "-m", "fastreg.benchmarks.compare", str(bad)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "FAILED kernels: fgsm_step: at least 90 % of a copy" in done.stdout
    assert compare.main([str(good)]) == 0
    assert "FAILED" not in capsys.readouterr().out
    assert compare.main([str(torn)]) == 2
    assert ours(edited)[0]["name"] in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_doubled_time_in_a_committed_record_is_found(path):
    found = record.read(path)
    slowest_spread = {r.name: max(r.high / r.us, r.us / r.low) for _, r in record.rows_of(found) if r.variant == OURS}
    for name in (name for name, spread in slowest_spread.items() if spread < 1.6):
        failed = [c.text for c in compare.compare(doubled(found, name), found) if c.failed]
        assert any(f": {name}: " in text for text in failed), name
    failed = [c.text for c in compare.compare(found, found) if c.failed and ", was " in c.text]
    assert failed == []  # a record is not slower than itself


def test_ratios_and_launches_hold_on_any_gpu_and_absolute_figures_on_one_card():
    """A card without limits of its own is still compared; an H100 has limits that an H200's figures do not decide."""
    texts = {}
    for name in ("NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA L4"):
        found = gpu_record()
        found["machine"] = {**found["machine"], "name": name}
        texts[name] = [c.text for c in compare.compare(found)]
    assert any("augment mixup: at most 40 us" in text for text in texts["NVIDIA H200"])
    assert any("augment mixup: at most 57 us" in text for text in texts["NVIDIA H100 80GB HBM3"])
    assert not any(" us " in text or "images/s" in text for text in texts["NVIDIA L4"])
    for found in texts.values():
        assert any("launches" in text for text in found)
        assert any("% of a copy" in text for text in found)
        assert any("time at most" in text for text in found)
    absolute = [t for t in TARGETS if t.measure in ("us", "images_per_second")]
    assert absolute
    assert {t.device for t in absolute} == {H100, H200}
    assert {t.device for t in TARGETS if t not in absolute} == {CUDA, CPU}


def test_a_missed_target_with_a_reason_is_named_and_does_not_fail():
    found = gpu_record()
    found["machine"] = {**found["machine"], "device": "cpu"}
    for us, failed in ((105.0, False), (130.0, False), (180.0, True)):  # 1.05 is asked, the reason goes to 1.7
        rows = [row("loss 256 x 100 mean", us, 256), row("loss 256 x 100 mean", 100.0, 256, variant="torch.compile")]
        found["suites"] = {"loss": record.suite("2026-01-01T00:00:00Z", 1.0, True, {}, rows, [])}
        compared = compare.compare(found)
        assert [c.failed for c in compared] == [failed]
        assert bool(compared[0].reason) == (us == 130.0)
        assert compare.exit_code(compared) == failed
    assert compare.summary(compare.compare(found))[-1] == "0 of 1 comparisons hold"
    rows[0] = row("loss 256 x 100 mean", 130.0, 256)
    found["suites"] = {"loss": record.suite("2026-01-01T00:00:00Z", 1.0, True, {}, rows, [])}
    lines = compare.summary(compare.compare(found))
    assert lines[0].startswith("missed loss: loss 256 x 100 mean: time at most 1.05 x torch.compile")
    assert lines[0].endswith(EXPLAINED[0].reason)
    assert lines[1] == "0 of 1 comparisons hold, 1 are missed for a stated reason"


@pytest.mark.parametrize("one", EXPLAINED, ids=lambda one: f"{one.name} {one.against}")
def test_a_reason_belongs_to_a_target_and_ends_above_it(one):
    targets = [t for t in TARGETS if t.device == CPU and (t.suite, t.against) == (one.suite, one.against)]
    assert any(fnmatchcase(one.name.replace("?", "1"), t.name) and t.missed(one.most) for t in targets)


def test_a_record_without_rows_does_not_pass():
    found = gpu_record()
    found["suites"] = {}
    assert compare.compare(found) == []
    assert compare.exit_code([]) == 1
    assert "nothing to compare" in compare.summary([])[-1]


def test_a_ratio_uses_the_base_of_the_same_rounds():
    """Clocks that changed between two cases do not count."""
    found = gpu_record()
    (mixup,) = [r for r in ours(found) if r["name"] == "step mixup"]
    for key in ("us", "low", "high"):
        mixup[key] *= 1.2
    target = "step mixup: time at most 1.01"
    assert any(target in c.text and c.failed for c in compare.compare(found))
    mixup["more"] = {"beside": "step none / fastreg", "beside_us": mixup["us"] / 1.001}
    assert any(target in c.text and not c.failed for c in compare.compare(found))


def test_a_target_is_missed_beyond_its_tolerance_only():
    most = Target("kernels", "x", "us", 100, tolerance=0.03)
    assert [most.missed(v) for v in (90, 102.9, 103.1)] == [False, False, True]
    least = Target("kernels", "x", "of_copy", 0.9, tolerance=0.03)
    assert [least.missed(v) for v in (0.95, 0.874, 0.872)] == [False, False, True]


def test_no_time_is_below_the_memory_limit_and_none_far_above_it():
    """Values read and written once each, at the copy rates of both cards."""
    values = 256 * 3 * 224 * 224
    for name, least in (("normalise", 3), ("cutmix", 3), ("cutout", 3), ("occlusion", 3), ("mixup", 4)):
        for card, rate in ((H100, 3.0e12), (H200, 4.3e12)):
            (target,) = [t for t in TARGETS if (t.name, t.device, t.measure) == (f"augment {name}", card, "us")]
            assert 1 < target.limit / (1e6 * values * least / rate) < 1.2
