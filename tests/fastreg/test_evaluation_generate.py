"""Repeated runs of ``fastreg corrupt``: what is there is read back, what is lost made again, what differs refused."""

import json
import pathlib
import shutil

import pytest

from fastreg import runs
from fastreg.errors import InputError, RunError
from fastreg.evaluation import generate, layouts
from fastreg.evaluation.generate import corrupt_dataset
from tests.fastreg.test_evaluation_files import cifar, folder, imagenet

BRIGHTNESS = {"corruptions": "brightness", "size": 64}
FIXTURES = cifar, folder, imagenet


def test_a_repeated_writing_reads_back_and_makes_again_what_is_lost(imagenet, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "c")
    lost, short, changed = (next((tmp_path / "c" / "brightness" / part).rglob("*.JPEG")) for part in "124")
    lost.unlink()
    short.write_bytes(short.read_bytes()[:-40])
    changed.write_bytes(changed.read_bytes()[:-3] + b"abc")
    made, honest = [], layouts._jpeg
    monkeypatch.setattr(layouts, "_jpeg", lambda image: (made.append(1), honest(image))[1])
    parts = corrupt_dataset(imagenet, tmp_path / "c", corruptions="brightness", size=64)
    assert len(made) == 3 * 16
    assert list(parts) == [f"brightness/{severity}" for severity in range(1, 6)]  # shot_noise was not looked at
    for file in folder.rglob("*.JPEG"):
        assert (tmp_path / "c" / file.relative_to(folder)).read_bytes() == file.read_bytes()
    listed = [json.loads((root / "corrupted.json").read_text()) for root in (tmp_path / "c", folder)]
    assert listed[0] == listed[1]


def test_lost_and_changed_arrays_and_labels_are_made_again(cifar, tmp_path):
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


def test_the_list_says_how_and_with_what_the_parts_were_made(cifar, folder, tmp_path):
    corrupt_dataset(cifar, tmp_path, corruptions="brightness")
    for root, jpeg in ((folder, 85), (tmp_path, None)):
        listed = json.loads((root / "corrupted.json").read_text())
        settings, (made,) = listed["settings"], listed["environments"]
        assert (settings["fidelity"], settings["jpeg"], settings["fastreg"]) == ("dataset", jpeg, generate.__version__)
        assert made["packages"].keys() >= {"torch", "numpy", "pillow", "opencv-python-headless"}
        assert made["device"] == "cpu"
        assert {row["environment"] for row in listed["parts"].values()} == {0}


def test_a_set_of_another_version_is_refused_and_of_another_machine_continued(imagenet, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "c")
    monkeypatch.setattr(generate, "__version__", "9.9")
    with pytest.raises(InputError, match=r"a set made with other fastreg \(0.1.0, not 9.9\): give another folder"):
        corrupt_dataset(imagenet, tmp_path / "c", **BRIGHTNESS)
    monkeypatch.undo()
    monkeypatch.setattr(generate, "environment", lambda: runs.environment() | {"platform": "another"})
    corrupt_dataset(imagenet, tmp_path / "c", corruptions="contrast", severities=[1], size=64)
    listed = json.loads((tmp_path / "c" / "corrupted.json").read_text())
    assert [made["platform"] == "another" for made in listed["environments"]] == [False, True]
    assert {row["environment"] for part, row in listed["parts"].items() if part == "contrast/1"} == {1}


def test_two_writers_of_one_folder(imagenet, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "begun")
    for place in ("begun", "new"):
        with (
            runs.lock(tmp_path / place),
            pytest.raises(InputError, match="in use by another run: wait for it, or give another DST"),
        ):
            corrupt_dataset(imagenet, tmp_path / place, **BRIGHTNESS)
    assert not (tmp_path / "new").exists()


def test_frost_photographs_that_do_not_do_are_said_before_any_work(imagenet, tmp_path, monkeypatch):
    from fastreg.pipelines import frost
    from tests.kernels.test_corruptions import frost_photographs

    options = {"corruptions": "brightness,frost", "size": 120, "constants": "tiny64"}
    with pytest.raises(InputError, match=r"frost1\.png"):
        corrupt_dataset(imagenet, tmp_path / "c", frost_dir=tmp_path, **options)
    monkeypatch.setattr(frost, "load_frost", lambda folder: frost_photographs())
    words = r"--size 120: frost photograph 2 is 94 x 168 \(scaled by 0.3\), .* leave frost out of --corruption"
    with pytest.raises(InputError, match=words):
        corrupt_dataset(imagenet, tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()
