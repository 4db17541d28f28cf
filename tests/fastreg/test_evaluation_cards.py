"""What a card keeps when it is continued, and what it measures again."""

import shutil

import numpy as np
import pytest
from PIL import Image

from fastreg.evaluation import Scorecard, engine, evaluate
from fastreg.evaluation.generate import corrupt_dataset
from fastreg.pipelines import open_dataset
from tests.fastreg.evaluated import tiny_images, tiny_net
from tests.support import write_tiny_imagenet


@pytest.fixture(scope="module")
def net():
    return tiny_net()


@pytest.fixture
def measured(monkeypatch):
    """The conditions that are run, in order."""
    seen, honest = [], engine._pass

    def watched(classifier, step, canvas, place, bar, note):
        seen.append(note)
        return honest(classifier, step, canvas, place, bar, note)

    monkeypatch.setattr(engine, "_pass", watched)
    return seen


def test_files_that_changed_are_measured_again_alone(tmp_path, measured):
    source = open_dataset("imagenet", "val", write_tiny_imagenet(tmp_path / "data", classes=2, val=3, side=70))
    corrupt_dataset(source, tmp_path / "c", corruptions="brightness", size=64)
    given = {"size": 64, "corruptions": "brightness", "imagenet_c_dir": tmp_path / "c", "out": tmp_path / "out"}
    whole = evaluate(tiny_net(2), "imagenet-c", source, **given).results("imagenet-c")["brightness/3"]
    lost = next((tmp_path / "c" / "brightness" / "3").rglob("*.JPEG"))
    kept = lost.read_bytes()
    lost.unlink()
    measured.clear()
    card = evaluate(tiny_net(2), "imagenet-c", source, **given)
    assert measured == ["imagenet-c brightness/3"]
    assert card.results("imagenet-c")["brightness/3"]["n"] == 5
    lost.write_bytes(kept)
    card = evaluate(tiny_net(2), "imagenet-c", source, **given)
    assert measured == ["imagenet-c brightness/3"] * 2
    assert card.results("imagenet-c")["brightness/3"]["error"] == whole["error"]
    evaluate(tiny_net(2), "imagenet-c", source, **given)
    assert len(measured) == 2  # nothing changed since


def test_arrays_that_changed_are_measured_again_alone(net, tmp_path, measured):
    images, labels = tiny_images(20, size=32)
    np.save(tmp_path / "fog.npy", np.concatenate([images.numpy()] * 5))
    np.save(tmp_path / "labels.npy", np.tile(labels.numpy(), 5))
    given = {"corruptions": "fog", "cifar_c_dir": tmp_path, "out": tmp_path / "out"}
    evaluate(net, "cifar-c", (images, labels), **given)
    stacked = np.load(tmp_path / "fog.npy")
    stacked[45, 0, 0, 0] ^= 1  # one bit of an image of severity 3; the file's size stays
    np.save(tmp_path / "fog.npy", stacked)
    measured.clear()
    evaluate(net, "cifar-c", (images, labels), **given)
    assert measured == ["cifar-c fog/3"]


def test_sets_that_grew_are_measured_again_alone(net, tmp_path, measured):
    images, labels = tiny_images(20, size=32)
    for name in ("lsun_crop", "isun"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(images[i].numpy()).save(tmp_path / name / f"{i}.png")
    given = {"ood_dir": tmp_path, "out": tmp_path / "out"}
    evaluate(net, "ood", (images, labels), **given)
    shutil.copy(tmp_path / "isun" / "0.png", tmp_path / "isun" / "9.png")
    measured.clear()
    card = evaluate(net, "ood", (images, labels), **given)
    assert [note for note in measured if note] == ["ood isun"]
    assert {name: row["n"] for name, row in card.results("ood").items()}["isun"] == 4
    assert Scorecard.load(tmp_path / "out" / "scorecard.json").results("ood")["isun"]["n"] == 4


def test_a_look_with_other_settings_loses_nothing(net, tmp_path, measured, capsys):
    data = tiny_images()
    given = {"corruptions": "brightness,pixelate", "fidelity": "memory", "out": tmp_path}
    evaluate(net, "clean,imagenet-c", data, **given)
    before = (tmp_path / "scorecard.json").read_bytes()
    measured.clear()
    card = evaluate(net, "imagenet-c", data, **{**given, "corruptions": "brightness", "constants": "imagenet224"})
    assert measured == [f"imagenet-c brightness/{s}" for s in range(1, 6)]
    assert card.results("clean")  # what does not depend on those settings goes on
    assert (tmp_path / "scorecard.1.json").read_bytes() == before
    said = capsys.readouterr().out
    assert "imagenet-c was measured with other settings" in said
    assert "scorecard.1.json" in said
    evaluate(net, "imagenet-c", data, **{**given, "fidelity": "dataset"})
    assert len(Scorecard.load(tmp_path / "scorecard.1.json").results("imagenet-c")) == 10
    assert len(Scorecard.load(tmp_path / "scorecard.2.json").results("imagenet-c")) == 5


def test_fidelity_is_imagenet_cs_alone(net, tmp_path, measured):
    given = {"corruptions": "fog", "out": tmp_path}
    card = evaluate(net, "cifar-c", tiny_images(size=32), **given)
    assert card.suites["cifar-c"]["settings"]["fidelity"] == "dataset"
    measured.clear()
    evaluate(net, "cifar-c", tiny_images(size=32), fidelity="memory", **given)
    assert measured == []
