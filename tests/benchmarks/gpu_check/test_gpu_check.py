"""The GPU check on a machine without a GPU: its plan, its results, its time limits, its verdict."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from fastreg.benchmarks import RESULTS, record, suites
from fastreg.benchmarks.cases import Case
from fastreg.benchmarks.gpu_check import __main__ as gpu_check
from fastreg.benchmarks.gpu_check import checks, correctness, kernels, plan, sanitize, speed, work
from fastreg.benchmarks.gpu_check.check import Check, Close
from tests.benchmarks.report.made_up_record import gpu_record, row
from tests.support import ROOT, environment

BROKEN = "tests.benchmarks.gpu_check.broken_checks:checks"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, so the check would run")
def test_without_a_gpu_the_error_is_one_sentence(tmp_path):
    words = [sys.executable, "-m", "fastreg.benchmarks.gpu_check", "correctness", "--out", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "gpu_check: this machine has no CUDA device; run it on a machine with one, or rehearse it with --device cpu."
    )


@pytest.fixture(scope="module")
def plans():
    return {mode: plan.plan(mode) for mode in ("correctness", "speed")}


def test_both_plans_fit_into_their_time(plans, capsys, monkeypatch):
    for lines in plans.values():
        assert sum(line.seconds for line in lines) < gpu_check.SECONDS < 240
    assert {line.name for line in plans["correctness"]} >= {"record launches", "compile", "checks"}
    monkeypatch.setattr(plan, "plan", lambda mode, *_: plans[mode])
    assert gpu_check.main(["speed", "--dry"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.endswith("s  speed in all")


def test_a_suite_fits_into_the_limit_that_its_module_names(plans):
    for name, row_ in suites.benchmarks().items():
        of_suite = [line.seconds for line in plans["speed"] if line.name.startswith(f"{name}: ")]
        assert 0 < sum(of_suite) <= row_.seconds, name


def test_the_speed_plan_begins_with_rows_that_only_a_gpu_can_measure(plans):
    names = [line.name for line in plans["speed"]]
    order = [
        "throughput: step none", "throughput: step none, compiled", "throughput: step mixup", "throughput: step cutmix",
        "throughput: step adversarial", "kernels: augment mixup", "loss: ", "corruptions: corrupt fog 3",
        "loaders: load folder", "eval: evaluate clean", "eval: evaluate fgsm",
    ]  # fmt: skip
    places = [next(i for i, name in enumerate(names) if name.startswith(word)) for word in order]
    assert places == sorted(places)
    assert sum(name.startswith("loss: ") for name in names) == 2
    assert sum(name.startswith("eval: ") for name in names) == 5
    assert len([name for name in names if name.startswith("corruptions: corrupt ")]) == 15


def test_the_order_of_the_checks():
    kinds = list(dict.fromkeys(check.name.split()[0] for check in checks.all_checks(quick=True)))
    assert kinds[:4] == ["step", "graph", "loader", "evaluation"]
    assert kinds[4] == "registry"


def test_checks_are_split_in_order_with_their_group_in_one_process():
    def check(name, group=""):
        return Check(name, lambda device: (), Close(0.0), group=group)

    listed = [check("a1", "a"), check("a2", "a"), check("b"), check("c"), check("d")]
    shares = checks.split(listed, 2)
    assert shares == [["a1", "a2", "c"], ["b", "d"]]  # each costs a second where its cost is unknown


def test_references_that_were_not_measured_have_an_estimate(capsys, monkeypatch):
    """A new registry row needs no measurement; the list of those without one is printed."""
    known = json.loads(checks.COSTS.read_text())
    listed = {check.group or check.name: check for check in checks.all_checks()}
    missing = sorted(listed.keys() - known.keys())
    if missing:
        print(
            f"estimated: {', '.join(missing)}; python -m fastreg.benchmarks.gpu_check.measure_references measures them"
        )
    assert all(0 <= checks.cost(listed[name]) <= max(known.values()) for name in missing)
    monkeypatch.setattr(checks, "_costs", lambda: {"corrupt a": 1.0, "corrupt b": 5.0, "corrupt c": 2.0})
    assert checks.cost(Check("corrupt d", lambda device: (), Close(0.0))) == 2.0
    assert checks.cost(Check("step d", lambda device: (), Close(0.0))) == checks.UNKNOWN_COST


def test_a_new_registry_row_is_checked(monkeypatch):
    op = kernels.operations()[0]
    monkeypatch.setattr(kernels, "operations", lambda: [replace(op, name="new row")])
    assert any("new row" in check.name for check in checks.all_checks(quick=True))


def test_recorded_specializations_are_those_of_a_launch(monkeypatch):
    """The same sources and options reach Triton's compiler from the compile pass as from a call on a GPU."""
    found = dict(work.record_launches(["fgsm_step contiguous_format"], work.CHECKS, True, 90))
    (key,) = found["fgsm_step contiguous_format"]["keys"]
    compiled = []
    monkeypatch.setattr("triton.compile", lambda source, target, options: compiled.append((source, target, options)))
    assert dict(work.compile_recorded([key]))[key]["error"] == ""
    ((source, target, options),) = compiled
    assert source.fn.fn.__module__ == "fastreg.kernels.attacks.kernels"
    assert target.arch == 90
    assert options["num_warps"] >= 1
    assert dict(work.record_launches(["fgsm_step contiguous_format"], work.CHECKS, True, 90)) == {
        "fgsm_step contiguous_format": {"keys": []}
    }


@pytest.mark.slow
def test_results_tracebacks_and_verdict(tmp_path):
    found = correctness.run_correctness(tmp_path, "cpu", time.monotonic() + 200, quick=True, processes=2, source=BROKEN)
    by_name = {result["name"]: result for result in found}
    assert [name for name, result in by_name.items() if result["ok"]] == ["good", "after the crash", "last"]
    assert correctness.read_results(tmp_path) == found
    text = (tmp_path / work.TRACEBACKS).read_text()
    assert "the cause stands on the second line" in text
    assert "illegal memory access" in text
    lines = correctness.summary(found)
    assert any(line.startswith("FAILED crash: the process ended") for line in lines)
    assert not correctness.passed(found)
    assert correctness.passed([by_name["good"]])
    unchecked = {**by_name["good"], "detail": "not checked: no PIL"}
    assert correctness.passed([by_name["good"], unchecked])
    assert not correctness.passed([unchecked])  # nothing was checked


def test_a_check_without_time_has_failed(tmp_path):
    found = correctness.run_correctness(tmp_path, "cpu", time.monotonic() - 1, quick=True, processes=1, source=BROKEN)
    assert {result["detail"] for result in found} == {"not run: no time was left"}
    assert not correctness.passed(found)


def test_the_packages_own_records_are_never_its_folder(capsys):
    before = {path: path.read_bytes() for path in RESULTS.iterdir()}
    assert gpu_check.main(["speed", "--out", str(RESULTS), "--device", "cpu"]) == 2
    assert "the package's own records: give another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in RESULTS.iterdir()} == before


@pytest.fixture
def speed_run(tmp_path, monkeypatch):
    """``run(cases)`` measures them as the loss suite, in this process."""
    monkeypatch.setattr(work, "pending", {})
    work._options.cache_clear()
    state = tmp_path / "state" / "begun.json"
    state.parent.mkdir()
    state.write_text("[]")

    def run(cases):
        monkeypatch.setattr("fastreg.benchmarks.suites.loss.cases", lambda *_: iter(cases))
        return list(work.run_suites(["loss"], str(tmp_path), "cpu", None, "main", str(state)))

    return run


def rows_of(folder):
    (path,) = speed.records(folder)
    return [r.name for _, r in record.rows_of(record.read(path))]


def test_a_failing_case_loses_its_own_row_only(tmp_path, speed_run):
    def broken():
        raise RuntimeError("no kernel\nsecond line")

    found = speed_run([Case("a", lambda: [row("a", 1.0)]), Case("b", broken), Case("c", lambda: [row("c", 1.0)])])
    assert found == [("loss", None), ("loss", {"restart": False})]
    assert rows_of(tmp_path) == ["a", "c"]
    assert "second line" in (tmp_path / work.TRACEBACKS).read_text()
    assert any(line.startswith("FAILED loss: b: it fails: RuntimeError: no kernel") for line in speed.summary(tmp_path))
    assert not speed.passed(tmp_path)


def test_after_a_cuda_error_a_new_process_continues(tmp_path, speed_run):
    calls = []

    def broken():
        calls.append("b")
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    cases = [Case("a", lambda: [row("a", 1.0)]), Case("b", broken), Case("c", lambda: [row("c", 1.0)])]
    assert speed_run(cases)[-1] == ("loss", {"restart": True})
    assert rows_of(tmp_path) == ["a"]
    assert speed_run(cases)[-1] == ("loss", {"restart": False})
    assert rows_of(tmp_path) == ["a", "c"]
    assert calls == ["b"]


def test_a_crash_is_noted_and_the_suite_continues(tmp_path, monkeypatch):
    """The processes are fakes: the first dies in case b, the second finishes."""
    whole = gpu_record()
    whole["suites"] = {"loss": whole["suites"]["loss"]}
    record.merge(tmp_path / "nvidia-h200.json", whole)
    state = tmp_path / "begun"
    answers = [("loss: b", {"crash": "the process ended with exit code -11"}), ("loss: c", {"restart": False})]

    class FakePool:
        def run(self, requests, answer, deadline):
            begun, result = answers.pop(0)
            state.write_text(json.dumps([*json.loads(state.read_text()), begun]))
            answer("loss", result)
            return True

    state.write_text("[]")
    notes: list[str] = []
    assert speed._run_suite(FakePool(), "loss", (), state, tmp_path, time.monotonic() + 60, notes)
    assert not answers
    assert notes == []
    (line,) = [line for line in speed.summary(tmp_path) if line.startswith("FAILED")]
    assert line == "FAILED loss: b: it fails: the process ended with exit code -11"


def test_a_crash_before_the_first_row_is_a_line_of_the_summary(tmp_path):
    state = tmp_path / "begun"
    state.write_text("[]")

    class FakePool:
        def run(self, requests, answer, deadline):
            answer("loss", {"crash": "the process ended with exit code -9"})
            return True

    notes: list[str] = []
    assert speed._run_suite(FakePool(), "loss", (), state, tmp_path, time.monotonic() + 60, notes)
    assert notes == ["FAILED loss: loss: the process ended with exit code -9"]


@pytest.mark.slow
def test_a_rehearsal_of_speed_ends_with_a_verdict(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "suite_order", lambda: ["loss"])
    (tmp_path / "nvidia-h200.json").write_text(json.dumps(gpu_record()))  # of an earlier run
    code = gpu_check.main(["speed", "--out", str(tmp_path), "--device", "cpu"])
    lines = capsys.readouterr().out.strip().splitlines()
    assert code == 0, lines
    assert lines[-1].startswith("VERDICT passed (speed, ")
    assert any(line.startswith("loss        loss 256 x 1000 mean") for line in lines)
    assert (tmp_path / gpu_check.SUMMARY).read_text().strip().splitlines() == lines
    assert not (tmp_path / "nvidia-h200.json").exists()
    files = list(tmp_path.iterdir())
    assert len(files) <= 6
    assert all(path.is_file() and path.stat().st_size <= gpu_check.LARGEST for path in files)


def test_a_text_too_large_to_carry_is_cut(tmp_path):
    (tmp_path / "tracebacks.txt").write_bytes(b"x" * (gpu_check.LARGEST + 9))
    gpu_check.truncate(tmp_path)
    assert (tmp_path / "tracebacks.txt").stat().st_size == gpu_check.LARGEST


@pytest.mark.parametrize(("code", "ok", "detail"), [(0, True, ""), (9, False, "ERROR SUMMARY: 2 errors")])
def test_the_sanitizers_findings_are_failures(code, ok, detail, tmp_path, monkeypatch):
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\necho $2\necho 'ERROR SUMMARY: 2 errors'\nexit {code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = sanitize.sanitize(60, tmp_path / "log.txt")
    assert [(r["name"], r["ok"], r["detail"]) for r in found] == [
        ("compute-sanitizer memcheck", ok, detail),
        ("compute-sanitizer racecheck", ok, detail),
    ]
    assert "racecheck" in (tmp_path / "log.txt").read_text()
    assert all("no time was left" in r["detail"] for r in sanitize.sanitize(5, tmp_path / "log.txt"))


def test_the_sanitizer_launches_every_kernel_once():
    assert sanitize.main("cpu") == 0


@pytest.mark.slow
def test_the_full_plan_is_walked():
    """Every case of every suite is set up and called once, at its small size."""
    names = [line.name for line in plan.plan("full")]
    assert {name.split(":")[0] for name in names} >= {"kernels", "loss", "throughput", "corruptions", "eval"}
