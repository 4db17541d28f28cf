"""The gate: what it does without a GPU, its time limits, its parity checks."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import torch

from fastreg.benchmarks import RESULTS
from fastreg.benchmarks.gpu_check import __main__ as gate
from fastreg.benchmarks.gpu_check import parity
from tests.benchmarks.report.made_up_record import gpu_record
from tests.support import ROOT, environment


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, so the gate would run")
def test_without_a_gpu_it_says_so_in_one_sentence(tmp_path):
    words = [sys.executable, "benchmarks/gate.py", "--out", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.strip() == "gate: this machine has no CUDA device; run it where there is one."


def test_the_parts_fit_into_nine_minutes():
    assert sum(part.seconds for part in gate.PARTS) < 540
    assert gate.TOTAL < 540


def test_a_part_is_stopped_at_its_limit_and_its_output_is_kept(tmp_path, monkeypatch):
    code = "import time; print('begun', flush=True); time.sleep(60)"
    monkeypatch.setattr(gate, "command", lambda *_: [sys.executable, "-c", code])
    start = time.monotonic()
    done = gate.run_part(gate.Part("stuck", 5), tmp_path, "cpu", True, limit=2)
    assert time.monotonic() - start < 20
    assert (done["status"], done["last_line"]) == ("stopped at its limit", "begun")


def test_a_part_writes_its_results(tmp_path, monkeypatch):
    """The gate's own way through one part, on the CPU; the verdict counts what was checked."""
    monkeypatch.setattr(parity, "checks", lambda quick: parity._attack())
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from fastreg.benchmarks import parity as p\n"
    code += "p.checks = lambda quick: p._attack(); sys.exit(p.main(sys.argv[1:]))"
    monkeypatch.setattr(gate, "command", lambda part, out, device, quick: [
        sys.executable, "-c", code, "--out", str(out / "parity.json"), "--device", device,
    ])  # fmt: skip
    assert gate.main(["--out", str(tmp_path), "--device", "cpu", "--parts", "parity"]) == 0
    assert [part["status"] for part in json.loads((tmp_path / "gate.json").read_text())["parts"]] == ["passed"]
    assert len(json.loads((tmp_path / "parity.json").read_text())) == 2


def test_the_packages_own_records_are_never_its_folder(monkeypatch, capsys):
    before = {path: path.read_bytes() for path in RESULTS.iterdir()}
    assert gate.main(["--out", str(RESULTS), "--device", "cpu", "--parts", "loss"]) == 2
    assert "holds the package's own records: give another folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in RESULTS.iterdir()} == before


def test_without_a_data_set_the_parts_get_the_sample(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTREG_DATA", raising=False)
    gate.write_sample_data(tmp_path / "out")
    assert list((tmp_path / "out" / gate.SAMPLE / "train").rglob("*.JPEG"))
    words = gate.command(gate.PARTS[-1], tmp_path / "out", "cpu", True)
    assert words[words.index("--data-dir") + 1] == str(tmp_path / "out" / gate.SAMPLE)
    monkeypatch.setenv("FASTREG_DATA", str(tmp_path / "out" / "data"))
    gate.write_sample_data(tmp_path / "other")  # found: nothing is written
    assert not (tmp_path / "other").exists()
    (tmp_path / "taken" / gate.SAMPLE).mkdir(parents=True)
    (tmp_path / "taken" / gate.SAMPLE / "note.txt").write_text("mine")
    monkeypatch.delenv("FASTREG_DATA")
    monkeypatch.chdir(tmp_path / "taken" / "data" / "imagenet")
    gate.write_sample_data(tmp_path / "taken")
    assert "gate: the loaders have no photographs" in capsys.readouterr().out


def test_a_part_may_use_what_the_parts_before_it_left(tmp_path, monkeypatch):
    limits = []

    def run(part, out, device, quick, limit):
        limits.append(limit)
        return {"name": part.name, "status": "passed", "seconds": 0.0, "last_line": ""}

    monkeypatch.setattr(gate, "run_part", run)
    monkeypatch.setattr(gate, "write_sample_data", lambda out: None)
    gate.main(["--out", str(tmp_path), "--device", "cpu"])
    whole = [sum(part.seconds for part in gate.PARTS[: i + 1]) for i in range(len(gate.PARTS))]
    assert limits == pytest.approx([min(seconds, gate.TOTAL) for seconds in whole], abs=2)


def test_an_unknown_part_is_bad_usage(tmp_path, capsys):
    assert gate.main(["--out", str(tmp_path), "--device", "cpu", "--parts", "parity,kernel"]) == 2
    assert capsys.readouterr().err.startswith("gate: unknown part 'kernel': known are parity, kernels, loss, ")


def test_no_time_is_no_pass(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gate, "write_sample_data", lambda out: None)
    monkeypatch.setattr(gate, "TOTAL", 1.0)
    (tmp_path / "parity.json").write_text(json.dumps([{"name": "old", "ok": True, "detail": ""}]))
    assert gate.main(["--out", str(tmp_path), "--device", "cpu", "--parts", "parity,loss"]) == 1
    assert "FAILED part parity: not run" in capsys.readouterr().out
    assert not (tmp_path / "parity.json").exists()
    assert [p["status"] for p in json.loads((tmp_path / "gate.json").read_text())["parts"]] == ["not run"] * 2
    assert gate.main(["--out", str(tmp_path), "--device", "cpu", "--parts", "loss"]) == 1
    assert "FAILED no part ran" in capsys.readouterr().out


def test_old_rows_of_a_part_never_count(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gate, "write_sample_data", lambda out: None)
    path = tmp_path / "nvidia-h200.json"
    path.write_text(json.dumps(gpu_record()))
    (tmp_path / "loss.log").write_text("old")
    monkeypatch.setattr(gate, "command", lambda *_: [sys.executable, "-c", ""])
    assert gate.main(["--out", str(tmp_path), "--device", "cpu", "--parts", "loss"]) == 1
    said = capsys.readouterr().out
    assert "FAILED part loss: it left no results" in said
    assert "nothing could be judged" in said
    assert set(json.loads(path.read_text())["suites"]) == gpu_record()["suites"].keys() - {"loss"}
    assert (tmp_path / "loss.log").read_text() == ""


def test_a_wrong_value_a_race_and_an_exception_are_failures():
    cpu = torch.device("cpu")
    answers = iter([torch.tensor([0.0, 1.0, 0.0]), torch.zeros(3), torch.zeros(3)])  # the reference comes first
    wrong = parity.Check("wrong", lambda device: (next(answers),), parity.Close(1e-6))
    assert "largest difference 1" in parity.run_check(wrong, cpu)["detail"]
    numbers = iter(range(3))
    racing = parity.Check("racing", lambda device: (torch.full((2,), float(next(numbers))),), parity.Close(9.0))
    assert "a race" in parity.run_check(racing, cpu)["detail"]

    calls = iter(range(3))

    def broken(device):
        if next(calls):
            raise RuntimeError("no kernel")
        return (torch.zeros(1),)

    result = parity.run_check(parity.Check("broken", broken, parity.EXACT), cpu)
    assert (result["ok"], result["detail"]) == (False, "RuntimeError: no kernel")


def test_a_nan_that_belongs_there_is_no_difference_and_one_that_does_not_is():
    cpu, close = torch.device("cpu"), parity.Close(1e-7, relative=1e-7)
    same = parity.Check("nan", lambda device: (torch.tensor([0.5, float("nan")]),), close)
    assert parity.run_check(same, cpu)["ok"]
    answers = iter([torch.tensor([0.5, 0.5]), *[torch.tensor([0.5, float("nan")])] * 2])
    assert not parity.run_check(parity.Check("nan", lambda device: (next(answers),), close), cpu)["ok"]


def test_a_reference_that_lacks_a_package_is_not_checked_and_says_so():
    def needs_more(device):
        raise ModuleNotFoundError("No module named 'PIL'")

    result = parity.run_check(parity.Check("jpeg", needs_more, parity.EXACT), torch.device("cpu"))
    assert (result["ok"], result["detail"]) == (True, "not checked: No module named 'PIL'")


def test_every_kind_of_check_runs():
    """Every row of the registry, every replay and the first check of each other group, on the CPU."""
    groups = (
        parity._augment(True),
        parity._loss(True),
        parity._attack(),
        parity._jpeg(True),
        parity._corruptions(True),
    )
    for check in (*parity._registered(), *parity._graphs(), *(next(iter(group)) for group in groups)):
        result = parity.run_check(check, torch.device("cpu"))
        assert result["ok"], result
