"""The rows that a continued card keeps, and those that it measures again."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fastreg.errors import RunError
from fastreg.evaluation import Scorecard, engine, evaluate
from fastreg.evaluation.corrupt_dataset import corrupt_dataset
from fastreg.evaluation.eval_data import EvalData
from fastreg.pipelines import open_dataset
from tests.fastreg.evaluation.tiny_classifier import tiny_images, tiny_net
from tests.support import write_tiny_imagenet

CHEAP = "brightness,pixelate"  # two corruptions that cost little


def stripped(card):
    """A card without the values that differ between two equal runs."""
    plain = json.loads(json.dumps(card.to_dict(), default=str))
    plain.pop("provenance")
    for suite in plain["suites"].values():
        suite.pop("measured")
        for row in suite["results"].values():
            row.pop("seconds")
    return plain


def test_a_killed_evaluation_continues_and_ends_the_same(net, data, tmp_path, monkeypatch):
    from fastreg.evaluation import conditions

    arguments = {"batch_size": 8, "corruptions": CHEAP, "fidelity": "memory", "out": tmp_path}
    calls, honest = [], conditions.corrupt

    def failing(images, name, severity, **more):
        calls.append((name, severity))
        if len(calls) == 14:  # the first batches of the fourth condition
            raise KeyboardInterrupt
        return honest(images, name, severity, **more)

    monkeypatch.setattr(conditions, "corrupt", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate(net, "clean,imagenet-c", data, **arguments)
    half = Scorecard.load(tmp_path / "scorecard.json")
    assert len(half.results("imagenet-c")) == 3
    assert any("interrupted with 7 conditions left" in note for note in half.notes())
    calls.clear()
    monkeypatch.setattr(conditions, "corrupt", lambda *a, **k: (calls.append(a[1:]), honest(*a, **k))[1])
    resumed = evaluate(net, "clean,imagenet-c", data, **arguments)
    assert ("brightness", 3) not in calls
    assert ("brightness", 4) in calls
    whole = evaluate(net, "clean,imagenet-c", data, **{**arguments, "out": None})
    assert stripped(resumed) == stripped(whole)
    assert stripped(Scorecard.load(tmp_path / "scorecard.json")) == stripped(whole)
    calls.clear()
    evaluate(net, "imagenet-c", data, **arguments)
    assert calls == []  # everything is there


def test_other_settings_are_run_again_and_another_model_keeps_the_old_card(net, data, tmp_path):
    evaluate(net, "clean,fgsm", data, out=tmp_path)
    card = evaluate(net, "fgsm", data, out=tmp_path, epsilon=2 / 255)
    assert card.suites["fgsm"]["settings"]["epsilon"] == 2 / 255
    assert card.results("clean")
    other = evaluate(tiny_net(seed=1), "clean", data, out=tmp_path)
    assert not other.results("fgsm")
    assert Scorecard.load(tmp_path / "scorecard.1.json").results("fgsm")


@pytest.mark.parametrize("change", [{"model": tiny_net(seed=1)}, {"epsilon": 2 / 255}])
def test_a_failed_evaluation_leaves_the_old_card(net, data, tmp_path, monkeypatch, change):
    evaluate(net, "clean,fgsm", data, out=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(EvalData, "decode", lambda *a, **k: (_ for _ in ()).throw(RunError("a broken image")))
    arguments = {"model": net, "suites": "fgsm", "data": data, "out": tmp_path, **change}
    with pytest.raises(RunError, match="a broken image"):
        evaluate(**arguments)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.fixture
def measured(monkeypatch):
    """The measured conditions, in order."""
    seen, honest = [], engine._pass

    def watched(*given):
        seen.append(given[-1])
        return honest(*given)

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


def test_other_settings_lose_nothing(net, tmp_path, measured, messages):
    data = tiny_images()
    given = {"corruptions": "brightness,pixelate", "fidelity": "memory", "out": tmp_path}
    evaluate(net, "clean,imagenet-c", data, **given)
    before = (tmp_path / "scorecard.json").read_bytes()
    measured.clear()
    card = evaluate(net, "imagenet-c", data, **{**given, "corruptions": "brightness", "constants": "imagenet224"})
    assert measured == [f"imagenet-c brightness/{s}" for s in range(1, 6)]
    assert card.results("clean")  # what does not depend on those settings goes on
    assert (tmp_path / "scorecard.1.json").read_bytes() == before
    logged = "\n".join(messages)
    assert "imagenet-c was measured with other settings" in logged
    assert "scorecard.1.json" in logged
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
