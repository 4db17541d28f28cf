"""Repeated runs of ``fastreg corrupt``: what is there is read back, what is lost made again, what differs refused."""

import json
import pathlib
import shutil

import pytest

from fastreg.errors import RunError
from fastreg.evaluation import layouts
from fastreg.evaluation.generate import corrupt_dataset
from tests.fastreg.test_evaluation_files import cifar, folder, imagenet

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
