"""Files that commit 25d715e wrote are still read: checkpoints, logs, scorecards, corrupted sets, benchmark records."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fastreg
from fastreg.evaluation import Scorecard, evaluate, load_classifier
from fastreg.pipelines import open_dataset

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FILES = ROOT / "tests" / "golden" / "files-25d715e"
EPOCHS = 6  # of the run, which was stopped after its first


def python(*words: object, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{shlex.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def cli(*words: object, cwd: Path) -> str:
    return python("-m", "fastreg", *words, cwd=cwd)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with the two data sets that the files belong to."""
    root = tmp_path_factory.mktemp("data")
    python(HERE / "tiny.py", root, cwd=root)
    return root


@pytest.fixture
def work(data, tmp_path) -> Path:
    """A folder with ``runs/cifar100`` and ``runs/imagenet`` as they were written, and the data beside them."""
    for name in ("cifar100", "imagenet"):
        shutil.copytree(FILES / name, tmp_path / "runs" / name)
        (tmp_path / name).symlink_to(data / name)
    for packed in tmp_path.glob("runs/*/*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    return tmp_path


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.mark.parametrize("inside", ["", "best.pt", "last.pt"])
def test_a_checkpoint_loads(work, inside):
    path = work / "runs" / "cifar100" / inside
    net, config = load_classifier(path)
    expected = torch.load(path if inside else path / "best.pt", map_location="cpu", weights_only=True)["model"]
    found = net.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    written = read(work / "runs" / "cifar100" / "config.json")
    assert json.loads(json.dumps({name: config[name] for name in written})) == written


def continued(work: Path, before: list[dict[str, Any]]) -> None:
    """The stopped run continued in its folder: it keeps its rows and ends with its last epoch."""
    folder = work / "runs" / "cifar100"
    assert sorted(path.name for path in (work / "runs").iterdir()) == ["cifar100", "imagenet"]
    after = rows(folder)
    assert after[: len(before)] == before
    assert [row["epoch"] for row in after if row["kind"] == "epoch"] == list(range(EPOCHS))
    state = torch.load(folder / "last.pt", map_location="cpu", weights_only=True)
    assert (state["ended"], state["step"]) == (EPOCHS, 3 * EPOCHS)
    assert state["ema"] is not None
    assert state["optimizer"]["state"]


@pytest.mark.slow
def test_a_run_resumes_by_its_folder(work):
    before = rows(work / "runs" / "cifar100")
    assert 1 <= len([row for row in before if row["kind"] == "epoch"]) < EPOCHS
    cli("train", "cifar100", "--resume", "runs/cifar100", cwd=work)
    continued(work, before)


@pytest.mark.slow
def test_a_run_resumes_by_its_flags(work):
    folder = work / "runs" / "cifar100"
    before, command = rows(folder), shlex.split(read(folder / "environment.json")["command"])
    cli(*command[1:], "--resume", "auto", cwd=work)
    continued(work, before)


@pytest.mark.parametrize("name", ["cifar100", "imagenet"])
def test_a_scorecard_loads(name):
    path = FILES / name / "scorecard.json"
    written, card = read(path), Scorecard.load(path)
    summary = card.summary()
    assert {key: summary.get(key) for key in written["summary"]} == written["summary"]
    for suite, content in written["suites"].items():
        assert card.results(suite) == content["results"]
        assert card.complete(suite)


@pytest.mark.slow
def test_eval_continues_a_scorecard(work):
    """Conditions of the scorecard are not measured again: their rows keep duration and date."""
    path = work / "runs" / "cifar100" / "scorecard.json"
    before = read(path)["suites"]
    cli(
        "eval",
        "runs/cifar100",
        "--suite",
        "clean,fgsm,occlusion",
        "--data-dir",
        "cifar100",
        "--device",
        "cpu",
        cwd=work,
    )
    after = read(path)["suites"]
    assert {suite: after[suite]["results"] for suite in before} == {
        suite: content["results"] for suite, content in before.items()
    }
    assert not list(path.parent.glob("scorecard.*.json"))


def test_eval_measures_a_checkpoint_as_before(work):
    words = "--suite clean,fgsm,occlusion --data-dir cifar100 --device cpu --out new"
    cli("eval", "runs/cifar100", *words.split(), cwd=work)
    before, after = (
        read(path)["suites"] for path in (FILES / "cifar100" / "scorecard.json", work / "new/scorecard.json")
    )
    for suite in ("clean", "fgsm", "occlusion"):
        old, new = before[suite]["results"][suite], after[suite]["results"][suite]
        assert new["error"] == old["error"]
        assert new["nll"] == pytest.approx(old["nll"], rel=1e-4)


@pytest.mark.slow
def test_report_shows_scorecards_and_logs(work):
    cli("report", "runs/cifar100", "runs/imagenet", "--out", "report.html", cwd=work)
    html = (work / "report.html").read_text()
    for name in ("cifar100", "imagenet"):
        summary = read(FILES / name / "scorecard.json")["summary"]
        for figure in ("clean_error", "fgsm_error", "occlusion_error", "nll", "brier"):
            assert f"{summary[figure]:.2f}" in html, figure
        for file in ("log.jsonl", "epochs.csv"):
            (work / "runs" / name / file).unlink()
    cli("report", "runs/cifar100", "runs/imagenet", "--out", "without.html", cwd=work)
    assert html.count("<svg") > (work / "without.html").read_text().count("<svg")  # the curves of the logs


def fits(data: Path, manifest: dict[str, Any]) -> None:
    """Skips where another version of Pillow encodes the data set's JPEG files otherwise."""
    now, then = (
        open_dataset("imagenet", "val", data / "imagenet").fingerprint,
        manifest["settings"]["data"]["fingerprint"],
    )
    if now != then:
        pytest.skip(f"the data is encoded otherwise here ({now}) than it was ({then})")


def test_a_corrupted_folder_is_evaluated(data):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 3)).eval()
    source, how = open_dataset("imagenet", "val", data / "imagenet"), {"size": 32, "constants": "tiny64"}
    folder = FILES / "corrupted-folders"
    card = evaluate(net, "imagenet-c", source, imagenet_c_dir=folder, corruptions="contrast", **how)
    results = card.results("imagenet-c")
    assert results.keys() == {"contrast/1", "contrast/4"}
    assert all(row["n"] == 12 and not row.get("differs") for row in results.values())


@pytest.mark.slow
def test_a_corrupted_folder_is_continued(data, tmp_path):
    """Conditions in corrupted.json are read back by their digests and kept; a further condition is added."""
    folder = Path(shutil.copytree(FILES / "corrupted-folders", tmp_path / "folders"))
    manifest = read(folder / "corrupted.json")
    fits(data, manifest)
    manifest["settings"]["fastreg"] = fastreg.__version__  # another version of fastreg refuses the folder
    (folder / "corrupted.json").write_text(json.dumps(manifest))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.JPEG")}
    assert len(before) == 24
    words = "--corruption contrast --severity 1,2,4 --size 32 --constants tiny64"
    cli("corrupt", data / "imagenet", folder, *words.split(), cwd=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    parts = read(folder / "corrupted.json")["parts"]
    assert {key: parts[key] for key in manifest["parts"]} == manifest["parts"]
    assert parts.keys() == {"contrast/1", "contrast/2", "contrast/4"}


@pytest.mark.slow
def test_corrupted_arrays_are_made_again(data, tmp_path):
    """Lost arrays that corrupted.json lists are written again, with the listed digest."""
    folder = Path(shutil.copytree(FILES / "corrupted-arrays", tmp_path / "arrays"))
    manifest = read(folder / "corrupted.json")
    manifest["settings"]["fastreg"] = fastreg.__version__
    (folder / "corrupted.json").write_text(json.dumps(manifest))
    cli("corrupt", data / "cifar100", folder, "--corruption", "fog", cwd=tmp_path)
    assert (folder / "fog.npy").is_file()
    parts = read(folder / "corrupted.json")["parts"]
    assert parts["fog"] | {"environment": None} == manifest["parts"]["fog"] | {"environment": None}
    assert parts["spatter"] == manifest["parts"]["spatter"]


def test_a_benchmark_record_is_read():
    from fastreg.benchmarks import record

    found = record.read(FILES / "benchmark.json")
    assert found["suites"].keys() == {"loss"}
    assert len(list(record.rows_of(found, "loss"))) == len(read(FILES / "benchmark.json")["suites"]["loss"]["rows"])
