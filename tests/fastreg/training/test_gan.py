"""The GAN's training: runs on a CIFAR folder, resumes bit for bit, and feeds ood_gan."""

from __future__ import annotations

import json
import pickle
import shlex
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg import methods, runs
from fastreg.cli import main
from fastreg.errors import InputError, RunError
from fastreg.kernels import Targets, mixed_cross_entropy
from fastreg.training import gan
from fastreg.training.gan import train_gan

SMALL = {"batch_size": 4, "width": 8, "latent": 6, "save_every": 2}


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """CIFAR-100's files with 20 images of stripes."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar-100-python"
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = (128 + 90 * np.sin(np.arange(32) / 2 + rng.uniform(0, 6, (20, 3, 32, 1)))).astype(np.uint8)
    for split in ("train", "test"):
        content = {"data": images.reshape(20, 3072), "fine_labels": [i % 2 for i in range(20)]}
        (folder / split).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["a", "b"]}))
    return root


def test_it_trains_resumes_bit_for_bit_and_feeds_the_method(cifar, tmp_path):
    common = {"data_dir": str(cifar), "device": "cpu", **SMALL}
    whole = train_gan(output=str(tmp_path / "whole"), steps=4, **common)

    class Stopped(Exception):
        pass

    def stop(path, state, save=runs.save_checkpoint):
        save(path, state)
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "save_checkpoint", stop)
        with pytest.raises(Stopped):
            train_gan(output=str(tmp_path / "cut"), steps=4, **common)
    cut = train_gan(output=str(tmp_path / "cut"), steps=4, resume=True, **common)
    one, two = (runs.load_checkpoint(folder / "last.pt") for folder in (whole, cut))
    for network in ("generator", "critic"):
        assert all(torch.equal(one[network][key], two[network][key]) for key in one[network])
    assert [json.loads(row)["step"] for row in (whole / "log.jsonl").read_text().splitlines()] == [2, 4]
    assert Image.open(whole / "samples.png").size == (256, 256)

    method = methods.create("ood_gan", ood=str(whole), dataset="cifar100")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 2))
    label = torch.zeros(3, dtype=torch.int64)
    targets = Targets(label, label, torch.ones(3))
    loss = method.step(model, torch.rand(3, 3, 32, 32), targets, mixed_cross_entropy, indices=torch.arange(3), step=0)
    loss.backward()
    assert torch.isfinite(loss)


def test_a_signal_saves_and_a_path_resumes(cifar, tmp_path, monkeypatch):
    common = {"data_dir": str(cifar), "device": "cpu", **SMALL, "save_every": 100}
    whole = train_gan(output=str(tmp_path / "whole"), steps=4, **common)
    with monkeypatch.context() as patch:
        ends = iter([None, None, signal.SIGTERM])

        def step(self, *arguments, step=gan._Pair.step):
            number = next(ends)
            if number:
                signal.raise_signal(number)
            return step(self, *arguments)

        patch.setattr(gan._Pair, "step", step)
        with pytest.raises(RunError, match="stopped at step 3; continue with: ") as stopped:
            train_gan(output=str(tmp_path / "cut"), steps=4, **common)
    with pytest.raises(InputError, match=r"`resume` nowhere: no last\.pt there"):
        train_gan(resume="nowhere", steps=4, **common)
    command = str(stopped.value).partition("continue with: ")[2]
    assert command == f"fastreg train gan --resume {tmp_path / 'cut' / 'gan'}"
    for more, code in ((["--lr", "0.5"], 2), ([], 0)):  # data, sizes and steps stay as they were
        monkeypatch.setattr("sys.argv", [*command.split(), *more])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
    cut = tmp_path / "cut" / "gan"
    one, two = (runs.load_checkpoint(folder / "last.pt") for folder in (whole, cut))
    assert one["step"] == two["step"] == 4
    assert all(torch.equal(one["generator"][key], two["generator"][key]) for key in one["generator"])


def test_losses_that_are_not_finite_name_step_rate_and_checkpoint(cifar, tmp_path, monkeypatch):
    common = {"data_dir": str(cifar), "device": "cpu", "output": str(tmp_path), **SMALL}
    count = iter(range(100))

    def step(self, *arguments, step=gan._Pair.step):
        losses = step(self, *arguments)
        return losses * (float("nan") if next(count) >= 4 else 1)

    monkeypatch.setattr(gan._Pair, "step", step)
    monkeypatch.setattr(gan, "READ_EVERY", 3)
    with pytest.raises(RunError, match=r"at step 5 \(learning rate 6e-05\): .*last\.pt was saved before this step"):
        train_gan(steps=10, lr=1e-4, **{**common, "save_every": 4})
    assert runs.load_checkpoint(tmp_path / "gan" / "last.pt")["step"] == 4


def test_bad_input_is_named(cifar, tmp_path):
    common = {"data_dir": str(cifar), "device": "cpu", "output": str(tmp_path), **SMALL}
    train_gan(steps=1, **common)
    with pytest.raises(InputError, match="contains a GAN already"):
        train_gan(steps=1, **common)
    with pytest.raises(InputError, match="another lr"):
        train_gan(steps=1, resume=True, lr=1.0, **common)
    with pytest.raises(InputError, match=r"`steps`.*at least 1"):
        train_gan(steps=0, **common)
    for device, message in (("foo", "`device` foo is not known"), ("cuda", "PyTorch sees no GPU")):
        with pytest.raises(InputError, match=message):
            train_gan(**{**common, "device": device})
    with pytest.raises(InputError, match=r"`seed` is .*: give at least 0"):
        train_gan(seed=2**70, **common)


def test_the_command_takes_its_sizes_as_json(cifar, tmp_path, monkeypatch, capsys):
    def command(*more: str) -> int:
        words = f"fastreg train gan --data-dir {cifar} --device cpu -b 4 --output {tmp_path} --reg-args"
        monkeypatch.setattr("sys.argv", [*words.split(), *more])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0

    assert command('{"steps": 1, "width": 8, "latent": 6}') == 0
    state = runs.load_checkpoint(tmp_path / "gan" / "last.pt")
    assert state["config"] | {"steps": 1, "width": 8, "latent": 6, "batch_size": 4} == state["config"]
    capsys.readouterr()
    other = tmp_path / "the other's"
    assert command('{"dataset": "cifar100", "steps": 1, "width": 8}', "--name", other.name) == 0
    assert runs.load_checkpoint(other / "last.pt")["config"]["dataset"] == "cifar100"
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    method = ["--reg", "ood_gan", "--reg-args", json.dumps({"ood": str(other)})]
    assert words == ["next:", "fastreg", "train", "cifar100", "--data-dir", str(cifar), *method]
    bad = {
        '{"dataset": 3}': "must be a name, but is 3",
        '{"depth": 3}': "known are steps",
        '{"steps": 1.5}': "must be a whole number, but is 1.5",
    }
    for wrong, message in bad.items():
        assert command(wrong) == 2
        assert message in capsys.readouterr().err
