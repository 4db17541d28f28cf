"""Exported models give the run's logits in other programs, and no half-written file remains."""

from __future__ import annotations

import json

import pytest
import torch

from fastreg import runs
from fastreg.cli import main
from fastreg.errors import InputError, RunError
from fastreg.evaluation.load_model import load_run
from fastreg.models import create_model
from fastreg.training import export as exporting
from fastreg.training import train
from fastreg.training.export import export
from tests.fastreg.training.tiny_runs import settings

NEEDS = {"safetensors": "safetensors", "onnx": "onnxruntime", "pt2": "torch"}


@pytest.fixture
def run(quick, data, tmp_path):
    """A run with averaged weights, ShakeDrop and blurred strides' arguments."""
    return train(settings("shakedrop", tmp_path, data))


def logits(path, images: torch.Tensor) -> torch.Tensor:
    """The logits of an exported network."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(images)
    import onnxruntime

    (found,) = onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})
    return torch.from_numpy(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "normalize"), [("pt2", True), ("onnx", True), pytest.param("onnx", False, marks=pytest.mark.slow)]
)
def test_exported_networks_take_any_batch(to, normalize, run):
    pytest.importorskip(NEEDS[to], reason=f"{NEEDS[to]} is not installed")
    path = export(run, to, normalize=normalize)
    assert path == run / f"best.{to}"
    model, config = load_run(run)
    for count in (1, 5):
        pixels = torch.rand(count, 3, 16, 16)
        mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
        with torch.no_grad():
            wanted = model((pixels - mean) / std if normalize else pixels)
            torch.testing.assert_close(logits(path, pixels), wanted, rtol=1e-4, atol=1e-5)
    assert not list(run.glob(".*.tmp"))


@pytest.mark.parametrize("weights", ["best", "last", "ema"])
def test_a_file_of_weights_names_its_model(weights, run):
    safe = pytest.importorskip("safetensors", reason="safetensors is not installed")
    path = export(run, weights=weights)
    with safe.safe_open(path, "pt") as file:
        facts = {key: json.loads(value) for key, value in file.metadata().items() if key not in ("format", "producer")}
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
    checkpoint = runs.load_checkpoint(run / ("best.pt" if weights == "best" else "last.pt"))
    wanted = checkpoint["ema" if weights == "ema" else "model"]
    assert found.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[key]) for key, value in found.items())
    create_model(facts["model"], facts["num_classes"], stem=facts["stem"], **facts["model_args"]).load_state_dict(found)
    assert facts["eval_size"] == 16
    assert facts["mean"] == checkpoint["config"]["mean"]


def test_a_file_with_other_logits_is_not_kept(run, monkeypatch, tmp_path):
    out = tmp_path / "model.pt2"
    out.write_bytes(b"old")

    def wrong(network, images, config):
        return b"new", lambda path: 1.1 * network(images).detach()

    monkeypatch.setitem(exporting.FORMATS, "pt2", wrong)
    with pytest.raises(RunError, match=r"logits differ by 1.* % from the run's: no file is kept"):
        export(run, "pt2", out)
    assert out.read_bytes() == b"old"
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"to": "onx"}, "unknown `to` 'onx': known are safetensors, onnx, pt2; did you mean 'onnx'"),
        ({"weights": "first"}, "unknown `weights` 'first': known are best, last, ema"),
        ({"normalize": True}, "`normalize` is for onnx and pt2"),
    ],
)
def test_wrong_requests(more, message, run):
    with pytest.raises(InputError, match=message):
        export(run, **more)


def test_a_run_without_an_average_has_none_to_export(quick, data, tmp_path):
    folder = train(settings("none", tmp_path, data, model_ema_decay=None))
    with pytest.raises(InputError, match=r"last.pt has no averaged weights: its run kept no average"):
        export(folder, "pt2", weights="ema")
    (folder / "best.pt").unlink()
    with pytest.raises(InputError, match=r"contains no best\.pt"):
        export(folder, "pt2")


@pytest.mark.parametrize(("to", "package"), [("onnx", "onnxruntime"), ("safetensors", "safetensors.torch")])
def test_a_missing_package_names_the_line_that_installs_it(to, package, run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(InputError, match=rf"`to` {to} needs .*pip install"):
        export(run, to)
    assert not list(run.glob(f"*.{to}"))


@pytest.mark.slow
def test_the_command_exports_the_newest_run(run, quick, tmp_path, capsys):
    quick.setattr(
        "sys.argv", ["fastreg", "export", "--to", "pt2", "--runs", str(tmp_path), "--out", str(tmp_path / "m")]
    )
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert capsys.readouterr().out.strip() == str(tmp_path / "m")
    quick.setattr("sys.argv", ["fastreg", "export", str(run), "--to", "trt"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "unknown --to 'trt'" in capsys.readouterr().err
