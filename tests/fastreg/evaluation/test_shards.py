"""``fastreg corrupt --shard I/N``: shards together write what one process writes; an incomplete set is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fastreg import files
from fastreg.errors import InputError
from fastreg.evaluation import corrupt_dataset as module
from fastreg.evaluation import corrupted_manifest as manifest
from fastreg.evaluation import evaluate
from fastreg.evaluation.corrupt_dataset import corrupt_dataset
from tests.fastreg.evaluation.tiny_classifier import tiny_net

PAIRS = {"corruptions": "brightness,impulse_noise", "severities": "1,2,5", "size": 64}  # six conditions


def content(root: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file() and path.name != ".lock"}
    return {name: path.read_bytes() for name, path in found.items()}


@pytest.fixture(scope="module")
def whole(imagenet, tmp_path_factory) -> Path:
    """The six conditions written by one process."""
    root = tmp_path_factory.mktemp("whole")
    corrupt_dataset(imagenet, root, **PAIRS)
    return root


def test_shards_in_any_order_write_what_one_process_writes(imagenet, whole, tmp_path):
    dst = tmp_path / "c"
    shares = [corrupt_dataset(imagenet, dst, **PAIRS, shard=f"{number}/4") for number in (3, 1, 4)]
    assert [list(rows) for rows in shares] == [
        ["brightness/5"],
        ["brightness/1", "impulse_noise/2"],
        ["impulse_noise/1"],
    ]
    net, given = tiny_net(classes=4), {"imagenet_c_dir": dst, "size": 64}
    words = (
        r"is incomplete, it lacks 2 conditions, such as brightness/2: shard 2/4 has not finished; run it with the same"
    )
    with pytest.raises(InputError, match=words):
        evaluate(net, "imagenet-c", imagenet, **given)
    done = evaluate(net, "imagenet-c", imagenet, **given, corruptions="brightness", severities=[1])
    assert done.suites["imagenet-c"]["settings"]["from"] == "files of fastreg corrupt"
    corrupt_dataset(imagenet, dst, **PAIRS, shard="2/4")
    assert content(dst) == content(whole)
    corrupt_dataset(imagenet, dst, **PAIRS, shard="1/4")  # once more: harmless
    assert content(dst) == content(whole)


def test_a_repeated_shard_writes_only_its_damaged_conditions(imagenet, whole, tmp_path, monkeypatch):
    dst = tmp_path / "c"
    shutil.copytree(whole, dst)
    for name in ("brightness/1", "brightness/2"):  # of shards 1 and 2 of 2
        next((dst / name).rglob("*.JPEG")).unlink()
    made, honest = [], module.write_folder
    monkeypatch.setattr(module, "write_folder", lambda root, *given: (made.append(root), honest(root, *given))[1])
    corrupt_dataset(imagenet, dst, **PAIRS, shard="2/2")
    assert made == [dst / "brightness" / "2"]
    corrupt_dataset(imagenet, dst, **PAIRS, shard="1/2")
    assert content(dst) == content(whole)


def test_a_killed_shard_is_named_and_a_call_without_shard_finishes(imagenet, whole, tmp_path, monkeypatch):
    dst, honest = tmp_path / "c", module.write_folder

    def stop_at_second(root, *given):
        if root.name == "2":
            raise KeyboardInterrupt
        return honest(root, *given)

    monkeypatch.setattr(module, "write_folder", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        corrupt_dataset(imagenet, dst, **PAIRS, shard="1/1")
    assert list(json.loads((dst / "corrupted.1-of-1.json").read_text())["parts"]) == ["brightness/1"]
    with pytest.raises(InputError, match="lacks 5 conditions, such as brightness/2: shard 1/1 has not finished"):
        evaluate(tiny_net(classes=4), "imagenet-c", imagenet, imagenet_c_dir=dst, size=64)
    with pytest.raises(KeyboardInterrupt):  # the same for a call without shards
        corrupt_dataset(imagenet, dst, **PAIRS)
    with pytest.raises(InputError, match=r"brightness/2: run the same `fastreg corrupt` command again"):
        evaluate(tiny_net(classes=4), "imagenet-c", imagenet, imagenet_c_dir=dst, size=64)
    monkeypatch.undo()
    corrupt_dataset(imagenet, dst, **PAIRS)
    assert content(dst) == content(whole)


def test_shards_of_arrays(cifar, tmp_path):
    given = {"corruptions": "brightness,contrast,fog"}
    corrupt_dataset(cifar, tmp_path / "whole", **given)
    corrupt_dataset(cifar, tmp_path / "c", **given, shard="1/2")
    assert sorted(path.name for path in (tmp_path / "c").glob("*.npy")) == ["brightness.npy", "fog.npy", "labels.npy"]
    with pytest.raises(InputError, match="lacks contrast: shard 2/2 has not finished"):
        evaluate(tiny_net(classes=100), "cifar-c", cifar_source(cifar), cifar_c_dir=tmp_path / "c")
    corrupt_dataset(cifar, tmp_path / "c", **given, shard="2/2")
    assert content(tmp_path / "c") == content(tmp_path / "whole")


def cifar_source(root: Path):
    from fastreg.pipelines import open_dataset

    return open_dataset("cifar100", "val", root)


def test_refused_shards(imagenet, tmp_path):
    for wrong in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2"):
        with pytest.raises(InputError, match=f"`shard` is {wrong}: give I/N with I from 1 to N"):
            corrupt_dataset(imagenet, tmp_path / "c", **PAIRS, shard=wrong)
    assert not (tmp_path / "c").exists()
    dst = tmp_path / "c"
    corrupt_dataset(imagenet, dst, **PAIRS, shard="1/6")
    with pytest.raises(InputError, match=r"`shard` is 1/3, but .* is being written in 6 shards of 6 conditions"):
        corrupt_dataset(imagenet, dst, **PAIRS, shard="1/3")
    with pytest.raises(InputError, match="is being written in 6 shards of 6 conditions: give the same N"):
        corrupt_dataset(imagenet, dst, **{**PAIRS, "severities": "1"}, shard="2/6")
    with pytest.raises(InputError, match=r"made with other seed \(0, not 1\)"):
        corrupt_dataset(imagenet, dst, **PAIRS, shard="2/6", seed=1)
    other = dst / "corrupted.2-of-7.json"
    other.write_bytes((dst / "corrupted.1-of-6.json").read_bytes())
    with pytest.raises(InputError, match="shards of different commands"):
        corrupt_dataset(imagenet, dst, **PAIRS, shard="2/6")


def test_shards_that_another_process_joins_meanwhile_are_read_as_the_whole(imagenet, whole, tmp_path, monkeypatch):
    dst = tmp_path / "c"
    for number in (1, 2):
        corrupt_dataset(imagenet, dst, **PAIRS, shard=f"{number}/3")
    listed = manifest.shard_files(dst)
    corrupt_dataset(imagenet, dst, **PAIRS, shard="3/3")
    rest = iter([listed])
    monkeypatch.setattr(manifest, "shard_files", lambda root: next(rest, []))
    assert manifest.read_manifest(dst)["parts"].keys() == manifest.read_manifest(whole)["parts"].keys()


@pytest.mark.parametrize("src", [None, "name"])
def test_splits_that_do_not_fit_are_refused(imagenet, tmp_path, src):
    given = {"split": "train", "val_split": "x"}
    with pytest.raises(InputError, match="`val_split`"):
        corrupt_dataset(imagenet if src is None else "imagenet", tmp_path / "c", **PAIRS, **given)


def test_two_shards_write_at_once_and_one_shard_only_once(imagenet, tmp_path):
    dst = tmp_path / "c"
    with files.lock(dst, shard="1-of-6"):
        corrupt_dataset(imagenet, dst, **PAIRS, shard="2/6")
        with pytest.raises(InputError, match="in use by another run"):
            corrupt_dataset(imagenet, dst, **PAIRS, shard="1/6")
        with pytest.raises(InputError, match="in use by another run"):
            corrupt_dataset(imagenet, dst, **PAIRS)
    with files.lock(dst), pytest.raises(InputError, match="in use by another run"):
        corrupt_dataset(imagenet, dst, **PAIRS, shard="3/6")
    assert not list(dst.glob(".lock-*"))
