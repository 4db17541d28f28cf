"""Repeated runs of ``fastreg corrupt``: existing files are read back, lost files rewritten, other settings refused."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg import files
from fastreg.distributed import World
from fastreg.errors import InputError, RunError
from fastreg.evaluation import corrupt_dataset as generate
from fastreg.evaluation import corrupted_layouts as layouts
from fastreg.evaluation import evaluate
from fastreg.evaluation.corrupt_dataset import corrupt_dataset
from fastreg.kernels import corrupt, jpeg_round_trip
from tests.fastreg.evaluation.tiny_classifier import tiny_net

BRIGHTNESS = {"corruptions": "brightness", "size": 64}


def test_a_repeated_call_reads_back_and_rewrites_lost_files(imagenet, corrupted_folder, tmp_path, monkeypatch):
    shutil.copytree(corrupted_folder, tmp_path / "c")
    lost, short, changed = (next((tmp_path / "c" / "brightness" / severity).rglob("*.JPEG")) for severity in "124")
    lost.unlink()
    short.write_bytes(short.read_bytes()[:-40])
    changed.write_bytes(changed.read_bytes()[:-3] + b"abc")
    made, honest = [], layouts._jpeg
    monkeypatch.setattr(layouts, "_jpeg", lambda image: (made.append(1), honest(image))[1])
    rows = corrupt_dataset(imagenet, tmp_path / "c", corruptions="brightness", size=64)
    assert len(made) == 3 * 16
    assert list(rows) == [f"brightness/{severity}" for severity in range(1, 6)]  # shot_noise was not looked at
    for file in corrupted_folder.rglob("*.JPEG"):
        assert (tmp_path / "c" / file.relative_to(corrupted_folder)).read_bytes() == file.read_bytes()
    listed = [json.loads((root / "corrupted.json").read_text()) for root in (tmp_path / "c", corrupted_folder)]
    assert listed[0] == listed[1]


def test_lost_and_changed_arrays_and_labels_are_rewritten(cifar, tmp_path):
    corrupt_dataset(cifar, tmp_path, corruptions="brightness,contrast,fog")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.npy")}
    (tmp_path / "labels.npy").unlink()
    (tmp_path / "fog.npy").unlink()
    (tmp_path / "contrast.npy").write_bytes(before["contrast.npy"][:-1] + b"!")
    (tmp_path / "brightness.npy").write_bytes(b"")
    corrupt_dataset(cifar, tmp_path, corruptions="brightness,contrast,fog")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.npy")} == before
    (tmp_path / "labels.npy").write_bytes(b"")
    corrupt_dataset(cifar, tmp_path, corruptions="fog")
    assert (tmp_path / "labels.npy").read_bytes() == before["labels.npy"]


def test_a_full_disk_leaves_no_temporary_file(imagenet, tmp_path, monkeypatch):
    honest = pathlib.Path.write_bytes

    def full(path, data):
        honest(path, data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(RunError, match="No space left on device; the same command continues"):
        corrupt_dataset(imagenet, tmp_path / "c", corruptions="brightness", severities=[1], size=64)
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_manifest_has_the_settings_and_environment_of_each_condition(cifar, corrupted_folder, tmp_path):
    corrupt_dataset(cifar, tmp_path, corruptions="brightness")
    for root, jpeg in ((corrupted_folder, 85), (tmp_path, None)):
        listed = json.loads((root / "corrupted.json").read_text())
        settings, (made,) = listed["settings"], listed["environments"]
        assert (settings["fidelity"], settings["jpeg"], settings["fastreg"]) == ("dataset", jpeg, generate.__version__)
        assert made["packages"].keys() >= {"torch", "numpy", "pillow", "opencv-python-headless"}
        assert made["device"] == "cpu"
        assert {row["environment"] for row in listed["parts"].values()} == {0}


def test_a_set_of_another_version_is_refused_and_of_another_machine_continued(
    imagenet, corrupted_folder, tmp_path, monkeypatch
):
    shutil.copytree(corrupted_folder, tmp_path / "c")
    monkeypatch.setattr(generate, "__version__", "9.9")
    with pytest.raises(InputError, match=r"a set made with other fastreg \(0.1.0, not 9.9\): give another folder"):
        corrupt_dataset(imagenet, tmp_path / "c", **BRIGHTNESS)
    monkeypatch.undo()
    honest = generate.environment
    monkeypatch.setattr(generate, "environment", lambda: honest() | {"platform": "another"})
    corrupt_dataset(imagenet, tmp_path / "c", corruptions="contrast", severities=[1], size=64)
    listed = json.loads((tmp_path / "c" / "corrupted.json").read_text())
    assert [made["platform"] == "another" for made in listed["environments"]] == [False, True]
    assert {row["environment"] for name, row in listed["parts"].items() if name == "contrast/1"} == {1}


def test_two_writers_of_one_folder(imagenet, corrupted_folder, tmp_path):
    shutil.copytree(corrupted_folder, tmp_path / "begun")
    for place in ("begun", "new"):
        with (
            files.lock(tmp_path / place),
            pytest.raises(InputError, match="in use by another run: wait for it, or give another DST"),
        ):
            corrupt_dataset(imagenet, tmp_path / place, **BRIGHTNESS)
    assert not (tmp_path / "new").exists()


def test_unusable_frost_textures_are_refused_before_any_work(imagenet, tmp_path, monkeypatch):
    from fastreg.pipelines import frost
    from tests.kernels.corruptions.golden_cases import frost_textures

    options = {"corruptions": "brightness,frost", "size": 120, "constants": "tiny64"}
    with pytest.raises(InputError, match=r"frost1\.png"):
        corrupt_dataset(imagenet, tmp_path / "c", frost_dir=tmp_path, **options)
    monkeypatch.setattr(frost, "load_frost", lambda folder: frost_textures())
    words = r"120 px: frost texture 2 in `textures` is 94 x 168 \(scaled by 0.3\), .* or leave frost out"
    with pytest.raises(InputError, match=words):
        corrupt_dataset(imagenet, tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()
    with pytest.raises(InputError, match=words):
        evaluate(tiny_net(classes=4), "clean,imagenet-c", imagenet, out=tmp_path / "card", **options)
    assert not (tmp_path / "card" / "scorecard.json").exists()


def test_a_crop_of_all_leaves_images_of_the_size_as_they_are(tmp_path):
    """Tiny ImageNet at its own 64 px: nothing is resized or cropped, and the card notes it."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (6, 64, 64, 3), dtype=np.uint8))
    for i, image in enumerate(images):
        (tmp_path / "tiny" / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(tmp_path / "tiny" / f"class{i % 2}" / f"{i}.png")
    options = {"corruptions": "brightness", "severities": [3], "size": 64, "crop_pct": 1.0}
    corrupt_dataset(tmp_path / "tiny", tmp_path / "c", **options)
    wanted = jpeg_round_trip(corrupt(images, "brightness", 3), 85).numpy()
    for i, image in enumerate(wanted):
        stored = tmp_path / "c" / "brightness" / "3" / f"class{i % 2}" / f"{i}.JPEG"
        assert np.array_equal(np.asarray(Image.open(stored)), image)
    order = [0, 2, 4, 1, 3, 5]
    arrays = (images[order], torch.tensor([0, 0, 0, 1, 1, 1]))
    net, pixels = tiny_net(classes=2), {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    read = evaluate(net, "clean", tmp_path / "tiny", size=64, crop_pct=1.0, **pixels)
    given = evaluate(net, "clean", arrays, **pixels)
    assert read.results("clean")["clean"]["nll"] == pytest.approx(given.results("clean")["clean"]["nll"])
    assert any("crop_pct 1 instead of 0.875" in note for note in read.notes())
    with pytest.raises(InputError, match=r"`crop_pct` is 1\.5"):
        evaluate(net, "clean", tmp_path / "tiny", size=64, crop_pct=1.5)


def test_stored_canvases_are_cut_as_images_are(imagenet, tmp_path):
    from fastreg.evaluation.eval_data import EvalData
    from fastreg.pipelines import open_dataset
    from fastreg.pipelines.prepare import write_beton

    write_beton("imagenet", imagenet.root, tmp_path / "val.beton", raw=64, split="val")
    source = open_dataset("imagenet", "val", tmp_path)
    cache = EvalData(source, 56).decode(World(0, 1, torch.device("cpu")), batch_size=8)
    assert cache.images.shape[1:] == (56, 56, 3)
    assert np.array_equal(cache.images[3].numpy(), source.read(3)[4:60, 4:60])
