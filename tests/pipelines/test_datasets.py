from __future__ import annotations

import os
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from fastreg.errors import InputError, RunError
from fastreg.pipelines import check_fingerprint, make_loader, open_dataset, verify, write_beton, write_sample
from fastreg.pipelines.sample import SAMPLE_IMAGES, _regions
from fastreg.pipelines.source import FolderSource
from tests.support import peer


def test_the_sample_is_an_imagenet_folder_of_real_images(data):
    train, val = (open_dataset("imagenet", split, data / "imagenet") for split in ("train", "val"))
    assert len(train.classes) >= 10
    assert train.classes == val.classes
    assert np.bincount(train.labels).min() >= 40
    assert np.bincount(val.labels).min() >= 10
    assert train.is_sample
    assert train.name == "imagenet"
    assert train.split == "train"
    sides = []
    for i in range(0, len(train), 7):
        with Image.open(train.describe(i)) as image:
            assert image.format == "JPEG"
            assert image.mode == "RGB"
            sides += image.size
    assert 200 <= min(sides) < 240
    assert 460 < max(sides) <= 500


def test_the_two_regions_of_an_image_are_disjoint_and_fill_it():
    for file, vertical, share in SAMPLE_IMAGES.values():
        regions = _regions(file, vertical, share)
        axis = 0 if vertical else 1
        whole = regions["train"].size[axis] + regions["val"].size[axis]
        assert regions["train"].size[1 - axis] == regions["val"].size[1 - axis]
        assert round(whole * share) == regions["train"].size[axis]


def test_the_sample_is_deterministic(data, tmp_path):
    write_sample("cifar100", tmp_path / "again")
    for file in ("train", "test", "meta"):
        path = f"cifar100/cifar-100-python/{file}"
        assert (tmp_path / "again/cifar-100-python" / file).read_bytes() == (data / path).read_bytes()


def test_the_usual_readers_take_the_cifar_sample(data):
    base = data / "cifar100/cifar-100-python"
    with open(base / "train", "rb") as file:
        as_bytes = pickle.load(file, encoding="bytes")
    with open(base / "train", "rb") as file:
        as_text = pickle.load(file, encoding="latin1")
    assert set(as_bytes) == {b"filenames", b"batch_label", b"fine_labels", b"coarse_labels", b"data"}
    assert as_text["data"].shape[1] == 3072
    assert as_text["data"].dtype == np.uint8
    source = open_dataset("cifar100", "train", data / "cifar100")
    assert source.images.shape == (len(source), 32, 32, 3)
    assert source.is_sample
    assert np.array_equal(source.images[5].transpose(2, 0, 1).ravel(), as_text["data"][5])
    assert source.labels.tolist() == as_text["fine_labels"]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_cifar_written_by_python_3_is_read(tmp_path, protocol):
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    rows = np.arange(4 * 3072, dtype=np.uint32).astype(np.uint8).reshape(4, 3072)
    for file in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (base / file).write_bytes(pickle.dumps({b"data": rows, b"labels": [0, 1, 2, 1]}, protocol))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b", "c"]}, protocol))
    source = open_dataset("cifar10", "test", tmp_path)
    assert source.labels.tolist() == [0, 1, 2, 1]
    assert source.classes == ("a", "b", "c")
    assert not source.is_sample
    assert len(open_dataset("cifar10", "train", base)) == 20


class _Evil:
    def __reduce__(self):
        return os.system, ("touch owned",)


def test_a_pickle_that_wants_code_is_refused_before_it_runs(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "cifar-100-python"
    base.mkdir()
    (base / "train").write_bytes(pickle.dumps({b"data": _Evil()}))
    with pytest.raises(InputError, match="refused"):
        open_dataset("cifar100", "train", tmp_path)
    assert not (tmp_path / "owned").exists()
    (base / "train").write_bytes((data / "cifar100/cifar-100-python/train").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cannot be read|refused"):
        open_dataset("cifar100", "train", tmp_path)


def test_where_a_data_set_is_looked_for(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTREG_DATA", raising=False)
    with pytest.raises(InputError, match="fastreg data sample imagenet") as caught:
        open_dataset("imagenet", "train")
    assert all(way in str(caught.value) for way in ("`data_dir`", "FASTREG_DATA", "data/imagenet"))
    monkeypatch.setenv("FASTREG_DATA", str(data))
    assert open_dataset("imagenet", "train").root == data / "imagenet"
    with pytest.raises(InputError, match="does not exist"):
        open_dataset("imagenet", "train", tmp_path / "nowhere")
    with pytest.raises(InputError, match="did you mean 'cifar100'"):
        open_dataset("cifar1000", "train")


def test_folders_that_are_not_a_data_set(tmp_path):
    def put(path):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")

    with pytest.raises(InputError, match="train/<class>"):
        open_dataset("folder", "train", tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="no class folders"):
        open_dataset("folder", "train", tmp_path)
    put("train/cat/1.jpg")
    put("train/dog/notes.txt")
    with pytest.raises(InputError, match="train/dog has no images"):
        open_dataset("folder", "train", tmp_path)
    put("train/dog/1.PNG")
    put("val/dog/1.jpg")
    lacks_cat = open_dataset("folder", "val", tmp_path)
    assert (lacks_cat.classes, lacks_cat.labels.tolist()) == (("cat", "dog"), [1])
    put("val/eel/1.jpg")
    with pytest.raises(InputError, match="'eel'"):
        open_dataset("folder", "val", tmp_path)


def test_the_images_and_their_order_are_those_of_torchvisions_imagefolder(tmp_path):
    names = "a/9.jpg a/sub/1.png a/sub/deep/0.bmp a/sub-2/0.webp a/B.PPM a/c.pgm a/d.tif a/e.TIFF b/x.jpeg b/y.gif"
    for k, name in enumerate(names.split()):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        form = {".ppm": "PPM", ".pgm": "PPM"}.get(path.suffix.lower())
        Image.new("L" if path.suffix == ".pgm" else "RGB", (9, 7 + k), 20 * k).save(path, form)
    source = open_dataset("folder", "train", tmp_path)
    theirs = peer("torchvision.datasets").ImageFolder(str(tmp_path / "train"))
    assert [source.describe(k) for k in range(len(source))] == [path for path, _ in theirs.samples]
    assert source.labels.tolist() == theirs.targets
    for name in ("folder", "resident"):
        with make_loader(source, loader=name, train=False, batch_size=9, size=8, resize=1.0) as loader:
            (batch,) = loader.batches()
        assert batch.images.float().mean((1, 2, 3)).tolist() == pytest.approx(
            [np.asarray(image.convert("RGB")).mean() for image, _ in theirs], abs=1
        )
    assert verify("folder", tmp_path) == {"checked": 9, "broken": []}


def test_a_name_that_is_not_utf8_is_one_sentence(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    file = os.fsencode(tmp_path / "train" / "a") + b"/caf\xe9.jpg"
    with open(file, "wb"):
        pass
    with pytest.raises(InputError, match=r"holds a name that is not UTF-8, '0/caf\\udce9\.jpg") as caught:
        open_dataset("folder", "train", tmp_path)
    str(caught.value).encode()


def test_a_changed_data_set_is_refused_with_what_changed(tmp_path):
    for name in ("train/a/1.jpg", "train/b/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"four")
    then = open_dataset("folder", "train", tmp_path).fingerprint
    check_fingerprint(then, open_dataset("folder", "train", tmp_path).fingerprint, tmp_path)
    (tmp_path / "train/a/1.jpg").write_bytes(b"grown")
    with pytest.raises(InputError, match=r"8 bytes.*9 bytes"):
        check_fingerprint(then, open_dataset("folder", "train", tmp_path).fingerprint, tmp_path)


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Two sets of 200 images: the same names and sizes in bytes, other pixels."""
    root = tmp_path_factory.mktemp("twins")
    for k, name in enumerate(("a", "b")):
        rng = np.random.default_rng(k)
        (root / name / "train" / "x").mkdir(parents=True)
        for i in range(200):
            image = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
            image.save(root / name / "train" / "x" / f"{i:03d}.bmp")
    return root


def test_the_fingerprint_of_a_folder_sees_other_pixels_in_files_of_the_same_size(twins, tmp_path, monkeypatch):
    reads = []
    read = FolderSource.read
    monkeypatch.setattr(FolderSource, "read", lambda self, index: (reads.append(index), read(self, index))[1])
    a, b = (open_dataset("folder", "train", twins / name) for name in "ab")
    assert reads == []  # opening reads no image
    assert a.counts == b.counts
    assert a.fingerprint != b.fingerprint
    assert a.fingerprint == open_dataset("folder", "train", twins / "a").fingerprint
    assert len(set(reads)) == 64  # and the fingerprint a few, from one end to the other
    assert {min(reads), max(reads)} == {0, 199}
    with pytest.raises(InputError, match="content"):
        check_fingerprint(a.fingerprint, b.fingerprint, twins)


@pytest.mark.parametrize("settings", [{"raw": 8}, {"jpeg_prob": 0}])
def test_the_fingerprint_of_a_beton_file_sees_every_sample(twins, tmp_path, settings):
    sources = []
    for name in "ab":
        write_beton("folder", twins / name, tmp_path / name / "train.beton", **settings)
        sources.append(open_dataset("folder", "train", tmp_path / name / "train.beton"))
    a, b = sources
    assert a.counts.split(", ")[:2] == b.counts.split(", ")[:2]
    assert a.content() != b.content()
    changed = tmp_path / "c" / "train"
    shutil.copytree(twins / "a" / "train", changed)
    (changed / "x" / "001.bmp").write_bytes((twins / "b" / "train" / "x" / "001.bmp").read_bytes())
    assert (
        open_dataset("folder", "train", changed.parent).fingerprint
        == open_dataset("folder", "train", twins / "a").fingerprint
    )
    write_beton("folder", changed.parent, changed.parent / "train.beton", **settings)
    assert open_dataset("folder", "train", changed.parent / "train.beton").content() != a.content()


def test_a_sample_overwrites_only_a_sample(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="already holds"):
        write_sample("imagenet", tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").exists()
    with pytest.raises(InputError, match="known are imagenet, cifar100"):
        write_sample("svhn", tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        write_sample("imagenet", tmp_path / "file" / "below")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "mine"]
