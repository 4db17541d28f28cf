"""The judge: a record that meets its targets passes; one with one time doubled fails, and the row is named."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest

from fastreg.benchmarks import RESULTS, record
from fastreg.benchmarks import compare as judge
from fastreg.benchmarks.gpu_check import __main__ as gate
from fastreg.benchmarks.record import OURS
from fastreg.benchmarks.targets import TARGETS, Target
from tests.benchmarks.report.made_up_record import gpu_record
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
    verdicts = judge.judge(gpu_record())
    assert len(verdicts) >= len([t for t in TARGETS if t.device != "cpu"])
    assert [v.text for v in verdicts if v.failed] == []


@pytest.mark.parametrize("name", [row["name"] for row in ours(gpu_record())])
def test_one_time_doubled_fails_and_names_the_row(name):
    found = gpu_record()
    of_others = [t.against.rpartition(" / ")[0] for t in TARGETS]
    failed = [v.text for v in judge.judge(doubled(found, name), found) if v.failed]
    assert any(f": {name}: " in text for text in failed), failed
    assert name in of_others or all(f": {name}: " in text for text in failed), failed


def test_without_an_earlier_record_the_targets_alone_find_a_doubled_time():
    failed = [v.text for v in judge.judge(doubled(gpu_record(), "augment mixup")) if v.failed]
    assert any("augment mixup: at most 45 us" in text for text in failed)
    assert any("augment mixup: at least 90 % of a copy" in text for text in failed)


def test_as_a_script_it_exits_1_and_names_the_row(tmp_path, capsys):
    good, bad, torn = (tmp_path / f"{name}.json" for name in ("good", "bad", "torn"))
    good.write_text(json.dumps(gpu_record()))
    bad.write_text(json.dumps(doubled(gpu_record(), "fgsm_step")))
    edited = gpu_record()
    ours(edited)[0]["us"] *= 2  # the median alone: no longer between its quartiles
    torn.write_text(json.dumps(edited))

    words = [sys.executable, "benchmarks/judge.py", str(bad)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "FAILED kernels: fgsm_step: at least 90 % of a copy" in done.stdout
    assert judge.main([str(good)]) == 0
    assert "FAILED" not in capsys.readouterr().out
    assert judge.main([str(torn)]) == 2
    assert ours(edited)[0]["name"] in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_doubled_time_in_a_committed_record_is_found(path):
    found = record.read(path)
    slowest_spread = {r.name: max(r.high / r.us, r.us / r.low) for _, r in record.rows_of(found) if r.variant == OURS}
    for name in (name for name, spread in slowest_spread.items() if spread < 1.6):
        failed = [v.text for v in judge.judge(doubled(found, name), found) if v.failed]
        assert any(f": {name}: " in text for text in failed), name
    failed = [v.text for v in judge.judge(found, found) if v.failed and ", was " in v.text]
    assert failed == []  # a record is not slower than itself


def test_a_record_that_no_target_is_about_is_not_passed(capsys):
    found = gpu_record()
    found["machine"] = {**found["machine"], "name": "NVIDIA L4"}
    assert judge.report(judge.judge(found)) == 1
    assert "nothing could be judged" in capsys.readouterr().out


def test_a_target_is_missed_beyond_its_tolerance_only():
    most = Target("kernels", "x", "us", 100, tolerance=0.03)
    assert [most.missed(v) for v in (90, 102.9, 103.1)] == [False, False, True]
    least = Target("kernels", "x", "of_copy", 0.9, tolerance=0.03)
    assert [least.missed(v) for v in (0.95, 0.874, 0.872)] == [False, False, True]


def test_the_gate_ends_with_the_verdict(tmp_path, capsys, monkeypatch):
    names = ["parity", *gpu_record()["suites"]]
    passed = [{"name": name, "status": "passed", "last_line": ""} for name in names]
    monkeypatch.setattr("fastreg.benchmarks.RESULTS", tmp_path / "none")
    (tmp_path / "nvidia-h200.json").write_text(json.dumps(gpu_record()))
    (tmp_path / "parity.json").write_text(json.dumps([{"name": "augment", "ok": True, "detail": ""}]))
    assert gate.verdict(tmp_path, passed) == 0
    assert "augment mixup" in capsys.readouterr().out
    (tmp_path / "parity.json").write_text(json.dumps([{"name": "augment", "ok": False, "detail": "a race"}]))
    assert gate.verdict(tmp_path, passed) == 1
    assert "FAILED check augment: a race" in capsys.readouterr().out
    (tmp_path / "parity.json").write_text(json.dumps([{"name": "augment", "ok": True, "detail": ""}]))
    stopped = {"status": "stopped at its limit", "last_line": "x"}
    assert gate.verdict(tmp_path, [*passed[:-1], {**passed[-1], **stopped}]) == 0  # its rows are kept
    assert gate.verdict(tmp_path, [{"name": "parity", **stopped}, *passed[1:]]) == 1
    assert gate.verdict(tmp_path, [*passed, {"name": "loss", "status": "failed", "last_line": "boom"}]) == 1
    assert "part loss: failed (boom)" in capsys.readouterr().out
    (tmp_path / "nvidia-h200.json").write_text(json.dumps(doubled(gpu_record(), "step none")))
    assert gate.verdict(tmp_path, passed) == 1
    assert "FAILED throughput: step none: at least 5,500 images/s" in capsys.readouterr().out
