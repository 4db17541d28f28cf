"""Running suites: rows are written as they are measured, bad input is one sentence, a new module is a new benchmark."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from fastreg.benchmarks import machine, record, run, runner, suites
from fastreg.benchmarks.cases import Case
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.errors import InputError, RunError
from tests.benchmarks.report.made_up_record import row
from tests.support import fastreg

DUMMY = """
from fastreg.benchmarks.cases import Case
from fastreg.benchmarks.record import Row, OURS
from fastreg.benchmarks.suites import Benchmark

BENCHMARK = Benchmark(help="adding two numbers", order=9, seconds=1)


def cases(options, settings):
    settings["numbers"] = 2
    for variant, us in ((OURS, 3.0), ("peer", 6.0), ("other peer", 9.0)):
        yield Case("add " + variant, lambda: [Row("add", variant, us, us, us, 5, images=1)])
"""


def test_a_module_in_the_folder_is_a_benchmark(tmp_path, monkeypatch):
    """Its row is in the help, in ``all`` and in the GPU check's plan; ``fastreg bench dummy`` prints and writes it."""
    from fastreg.cli import app, bench

    (tmp_path / "dummy.py").write_text(DUMMY)
    monkeypatch.setattr(suites, "__path__", [*suites.__path__, str(tmp_path)])
    assert bench.bench
    assert list(suites.benchmarks())[-1] == "dummy"
    assert suites.benchmarks()["dummy"].seconds == 1
    assert suites.select("all")[-1] == "dummy"
    done = CliRunner().invoke(app, ["bench", "dummy", "--device", "cpu", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert any("add" in line and "fastreg" in line and "333,333" in line for line in lines)
    assert any("peer" in line and line.rstrip().endswith("2.00") for line in lines)
    assert "settings: numbers 2" in done.output
    (path,) = (tmp_path / "out").glob("*.json")
    stored = record.read(path)["suites"]["dummy"]
    assert [(r["variant"], r["us"]) for r in stored["rows"]] == [(record.OURS, 3.0), ("peer", 6.0), ("other peer", 9.0)]


def test_every_suite_has_a_row_and_cases():
    found = suites.benchmarks()
    assert set(found) >= {"kernels", "loss", "throughput", "corruptions", "loaders", "eval"}
    for name, row_ in found.items():
        assert row_ == suites.load(name).BENCHMARK  # the row read without an import is the module's row
        assert callable(suites.load(name).cases)


def test_a_suite_that_fails_late_has_written_its_rows(tmp_path, monkeypatch):
    def cases(options, settings):
        yield Case("x", lambda: [row("loss x", 5.0)])

        def broken():
            yield row("loss y", 5.0)
            raise RuntimeError("the machine went away")

        yield Case("y", broken)

    monkeypatch.setattr("fastreg.benchmarks.suites.loss.cases", cases)
    with pytest.raises(RuntimeError):
        runner.run("loss", out=tmp_path, device="cpu")
    (path,) = tmp_path.glob("*.json")
    assert [r["name"] for r in record.read(path)["suites"]["loss"]["rows"]] == ["loss x", "loss y"]


def test_each_row_is_written_before_the_next_is_measured(tmp_path, monkeypatch):
    seen = []

    def cases(options, settings):
        def rows():
            for name in ("a", "b", "c"):
                files = list(tmp_path.glob("*.json"))
                seen.append(
                    [
                        r["name"]
                        for f in files
                        for r in json.loads(f.read_text())["suites"].get("loss", {"rows": []})["rows"]
                    ]
                )
                yield row(name, 5.0)

        yield Case("all of them", rows)

    monkeypatch.setattr("fastreg.benchmarks.suites.loss.cases", cases)
    runner.run("loss", out=tmp_path, device="cpu")
    assert seen == [[], ["a"], ["a", "b"]]


def test_a_row_measured_again_replaces_the_first(monkeypatch):
    rows = [row("x", 5.0), row("x", 5.0, launches=2)]
    monkeypatch.setattr("fastreg.benchmarks.suites.loss.cases", lambda *_: iter([Case("x", lambda: rows)]))
    (stored,) = runner.run("loss", device="cpu")["suites"]["loss"]["rows"]
    assert stored["more"] == {"launches": 2}


def test_cases_can_be_left_out_and_errors_kept(monkeypatch):
    """The GPU check continues after a failed case, and starts a new process after one that died."""

    def broken():
        raise RuntimeError("no kernel")

    cases = [Case("a", lambda: [row("a", 1.0)]), Case("b", broken), Case("c", lambda: [row("c", 1.0)])]
    monkeypatch.setattr("fastreg.benchmarks.suites.loss.cases", lambda *_: iter(cases))
    options = BenchmarkOptions(torch.device("cpu"))
    whole = runner.new_record(options)
    runner.run_suite(
        "loss",
        options,
        whole,
        wanted=lambda case: case.name != "a",
        on_error=lambda case, error: record.Absent(case.name, "fastreg", str(error)),
    )
    content = whole["suites"]["loss"]
    assert [r["name"] for r in content["rows"]] == ["c"]
    assert content["absent"] == [{"name": "b", "variant": "fastreg", "reason": "no kernel"}]
    runner.run_suite("loss", options, whole, wanted=lambda case: case.name == "a")
    assert [r["name"] for r in whole["suites"]["loss"]["rows"]] == ["c", "a"]
    assert len(whole["suites"]["loss"]["absent"]) == 1


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("thruput", {}, "did you mean 'throughput'"),
        ("loss", {"batch_size": 0}, "`batch_size` is 0: give 1 or more"),
        ("loss", {"size": -3}, "`size` is -3: give 1 or more"),
        ("loss", {"device": "gpu7"}, "`device` gpu7 is not known"),
        ("throughput", {"data_dir": "/nowhere"}, "no imagenet data at /nowhere"),
    ],
)
def test_bad_input_is_one_sentence(what, options, message):
    with pytest.raises(InputError, match=message):
        run(what, **{"device": "cpu", **options})


@pytest.mark.slow
def test_the_command_names_the_flag_without_a_traceback():
    for words, message in (
        (("throughput", "--data-dir", "/nowhere"), "no imagenet data at /nowhere"),
        (("loss", "-b", "0"), "--batch-size is 0: give 1 or more."),
    ):
        done = fastreg("bench", *words, "--device", "cpu")
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_an_unwritable_folder_is_known_before_the_work():
    with pytest.raises(RunError, match="cannot write"):
        run("loss", out="/dev/null/results", device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_refused():
    with pytest.raises(InputError, match="PyTorch sees no GPU"):
        run("loss", device="cuda")


@pytest.mark.parametrize("device", [None, "auto", "cuda", "cuda:0"])
def test_every_name_of_a_gpu_reaches_the_suite(device, monkeypatch):
    """torch's own set_device accepts no device without an index; PyTorch's query functions do."""

    def set_device(chosen):
        if torch.device(chosen).index is None:
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{chosen}")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    monkeypatch.setattr(machine, "describe", lambda device: {
        "slug": "gpu", "device": device.type, "name": "NVIDIA H100", "commit": None, "versions": {},
    })  # fmt: skip
    monkeypatch.setattr(machine, "state", lambda device: {})
    seen = []

    def cases(options, settings):
        seen.append((options.device.type, options.gpu))
        return iter(())

    monkeypatch.setattr("fastreg.benchmarks.suites.loss.cases", cases)
    run("loss", device=device)
    assert seen == [("cuda", True)]
