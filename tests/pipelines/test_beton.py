"""`.beton` files: FFCV reads fastreg's files, fastreg reads FFCV's files, and damage is never silent."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fastreg.cli.data import data as data_command
from fastreg.errors import InputError, RunError
from fastreg.pipelines import crop, make_loader, open_dataset, write_beton
from fastreg.pipelines.beton import FIELD, HEADER, JPEG, RAW
from tests.support import environment, resident_memory


def ffcv_arrays(path, **loader):
    """Canvases of one size and labels, read by FFCV's own Loader."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    pipelines = {"image": [SimpleRGBImageDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor()]}
    reader = Loader(
        str(path), 16, 1, order=OrderOption.SEQUENTIAL, drop_last=False, pipelines=pipelines, os_cache=True, **loader
    )
    batches = [(a.numpy().copy(), b.numpy().ravel().copy()) for a, b in reader]
    return [np.concatenate(x) for x in zip(*batches)]


def test_a_prepared_file_holds_the_set(mixed, folder):
    source = open_dataset("imagenet", "val", mixed)
    assert source.labels.tolist() == folder.labels.tolist()
    assert source.classes == folder.classes
    assert source.is_sample
    assert np.bincount(source.modes).tolist() == [60, 60]
    assert max(source.heights.max(), source.widths.max()) == 300
    for index in range(0, 120, 11):
        stored = source.read(index)
        image = Image.fromarray(stored) if isinstance(stored, np.ndarray) else Image.open(io.BytesIO(stored))
        original = Image.open(io.BytesIO(folder.read(index))).resize(image.size, Image.Resampling.BOX)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(original)).mean() < 4


def test_ffcv_reads_what_fastreg_writes(data, tmp_path):
    path = tmp_path / "val.beton"
    write_beton("imagenet", data / "imagenet", path, raw=64)
    source = open_dataset("imagenet", "val", path)
    assert source.canvas == (64, 64)
    images, labels = ffcv_arrays(path)
    assert labels.tolist() == source.labels.tolist()
    assert all(np.array_equal(image, source.read(i)) for i, image in enumerate(images))


@pytest.mark.parametrize("loader", ["folder", "ffcv", "dali"])
@pytest.mark.parametrize("mode", ["raw", "jpg", "proportion"])
def test_fastreg_reads_what_ffcv_writes(folder, tmp_path, mode, loader):
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    class Few:
        def __len__(self):
            return 24

        def __getitem__(self, i):
            return Image.open(io.BytesIO(folder.read(i))).convert("RGB"), int(folder.labels[i])

    path = tmp_path / "x.beton"
    fields = {"image": RGBImageField(write_mode=mode, max_resolution=250), "label": IntField()}
    DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(Few(), shuffle_indices=False)
    source = open_dataset("folder", "val", path)
    assert source.labels.tolist() == folder.labels[:24].tolist()
    for index in range(24):
        stored = source.read(index)
        if mode == "raw":
            assert isinstance(stored, np.ndarray)
        image = Image.fromarray(stored) if isinstance(stored, np.ndarray) else Image.open(io.BytesIO(stored))
        original = Image.open(io.BytesIO(folder.read(index))).resize(image.size, Image.Resampling.BOX)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(original)).mean() < 5
    with make_loader(source, loader=loader, train=True, batch_size=8, size=32) as made:
        assert len(list(made.batches())) == 3


@pytest.mark.parametrize("loader", ["folder", "dali"])
def test_the_stored_file_bytes_can_be_kept_so_every_loader_sees_the_folder(data, folder, tmp_path, loader):
    flags = ["--max-res", "0", "--jpeg-prob", "1", "--quality", "0"]
    call = ["prepare", "imagenet", "--from", str(data / "imagenet"), "--to", str(tmp_path / "val.beton"), *flags]
    assert CliRunner().invoke(data_command, call).exit_code == 0
    source = open_dataset("imagenet", "val", tmp_path / "val.beton")
    assert all(source.read(i) == folder.read(i) for i in range(len(folder)))
    kw = {"loader": loader, "train": True, "batch_size": 48, "size": 32, "seed": 9}
    with make_loader(source, **kw) as a, make_loader(folder, **kw) as b:
        for x, y in zip(a.batches(), b.batches(), strict=True):
            assert torch.equal(x.images, y.images)
            assert torch.equal(x.indices, y.indices)


def pillow(source, index, size, train, seed):
    """torchvision's arithmetic on stored images decoded by Pillow."""
    stored = source.read(index)
    image = Image.fromarray(stored) if isinstance(stored, np.ndarray) else Image.open(io.BytesIO(stored)).convert("RGB")
    if train:
        ((top, left, h, w),) = crop.random_boxes(seed, [index], 0, [image.height], [image.width]).tolist()
        return np.asarray(image.crop((left, top, left + w, top + h)).resize((size, size), Image.Resampling.BILINEAR))
    height, width = crop.resized(image.height, image.width, size)
    top, left = crop.center(height, width, size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize(
    ("name", "train", "mean", "largest"),
    [
        ("folder", True, 0.03, 1),
        ("folder", False, 0, 0),
        ("dali", True, 0.3, 24),
        ("dali", False, 0.2, 1),
        ("ffcv", True, 2, 60),
        ("ffcv", False, 3, 80),
    ],
)
def test_parity_of_the_decoders_on_one_file(mixed, capsys, name, train, mean, largest):
    """Each decoder against Pillow: samples, labels and order are equal, pixels differ by resampling only."""
    source = open_dataset("imagenet", "val", mixed)
    with make_loader(source, loader=name, train=train, batch_size=40, size=64, seed=2) as loader:
        batches = list(loader.batches())
        order = np.concatenate([indices for _, indices in loader.order.batches()])
    indices = torch.cat([b.indices for b in batches]).numpy()
    assert indices.tolist() == order.tolist()
    assert torch.cat([b.labels for b in batches]).tolist() == source.labels[order].tolist()
    images = torch.cat([b.images for b in batches]).numpy().astype(int)
    d = np.abs(images - np.stack([pillow(source, int(i), 64, train, 2) for i in indices]))
    with capsys.disabled():
        what = f"{name}, {'crops' if train else 'evaluation'}"
        print(f"\n{what:20s}mean |d| {d.mean():.3f}, max |d| {d.max()}, equal {(d == 0).mean():.1%}", end=" ")
    assert d.mean() <= mean
    assert d.max() <= largest


@pytest.mark.parametrize("side", [96, 64])  # 64: canvases are whole blocks of the disk
def test_canvases_go_out_untouched_with_their_boxes(data, tmp_path, side):
    write_beton("imagenet", data / "imagenet", tmp_path / "train.beton", raw=side)
    source = open_dataset("imagenet", "train", tmp_path)
    assert source.path == tmp_path / "train.beton"
    kw = {"train": True, "batch_size": 32, "size": 64, "seed": 3}
    others = [make_loader(source, loader=name, **kw) for name in ("ffcv", "resident")]
    with make_loader(source, **kw) as loader:
        for a, b, c in zip(loader.batches(), *(other.batches() for other in others), strict=True):
            assert torch.equal(a.images, c.images)
            assert torch.equal(a.crop, c.crop)
            assert a.images.shape == (32, side, side, 3)
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.crop, b.crop)
            assert all(np.array_equal(a.images[row].numpy(), source.read(int(i))) for row, i in enumerate(a.indices))
            assert (a.crop[:, :2] >= 0).all()
            assert (a.crop[:, :2] + a.crop[:, 2:] <= side).all()
    by_page = make_loader(source, page_order=True, **kw)
    assert sorted(np.concatenate([b.indices for b in by_page.batches()]).tolist()) == list(range(576))


def test_evaluation_from_256_canvases_is_evaluation_from_the_files(data, folder, tmp_path):
    write_beton("imagenet", data / "imagenet", tmp_path / "val.beton", raw=256)
    canvases = open_dataset("imagenet", "val", tmp_path / "val.beton")
    kw = {"train": False, "batch_size": 16, "size": 224}
    with make_loader(canvases, **kw) as a, make_loader(folder, **kw) as b:
        for x, y in zip(a.batches(), b.batches(), strict=True):
            assert torch.equal(x.images, y.images)


@pytest.mark.parametrize("name", ["folder", "ffcv", "dali"])
@pytest.mark.parametrize("how", ["zeros", "half"])
def test_a_broken_jpeg_in_the_file_is_named_never_old_pixels(mixed, tmp_path, name, how):
    source = open_dataset("imagenet", "val", mixed)
    victim = int(np.flatnonzero(source.modes == JPEG)[3])
    size, pointer = len(source.stored(victim)), int(source.pointers[victim])
    content = bytearray(mixed.read_bytes())
    keep = 0 if how == "zeros" else size // 2
    content[pointer + keep : pointer + size] = bytes(size - keep)
    (tmp_path / "val.beton").write_bytes(content)
    source = open_dataset("imagenet", "val", tmp_path / "val.beton")
    with (
        make_loader(source, loader=name, train=False, batch_size=16, size=32) as loader,
        pytest.raises(RunError, match=rf"sample {victim} of "),
    ):
        list(loader.batches())
    with make_loader(source, loader=name, train=False, batch_size=16, size=32, on_bad_image="skip") as loader:
        assert sum(len(b.labels) for b in loader.batches()) == 119
        assert loader.skipped == {victim}


def test_files_that_are_not_what_they_should_be(mixed, tmp_path, folder):
    content = mixed.read_bytes()
    path = tmp_path / "x.beton"

    def refused(data, match):
        path.write_bytes(data)
        with pytest.raises(InputError, match=match) as caught:
            open_dataset("imagenet", "val", path)
        assert "x.beton" in str(caught.value)

    for cut in (10, 100, 5000, len(content) // 2, len(content) - 30):
        refused(content[:cut], "cut short")
    refused(b"\x03\x00" + content[2:], "version 2")
    refused(b"P6 8 8 255 " + bytes(5000), "version 2")
    other = bytearray(content)
    other[HEADER.itemsize + FIELD.itemsize] = 3  # the label becomes bytes
    refused(bytes(other), r"image \(type 2\), label \(type 3\)")
    other = bytearray(content)
    label = HEADER.itemsize + 2 * FIELD.itemsize + 16
    other[label : label + 8] = (12).to_bytes(8, "little")
    refused(bytes(other), "label 12 but 12 classes")
    refused(b"", "cannot open")
    with pytest.raises(InputError, match=r"trains on \.beton files .* consists of encoded image files"):
        make_loader(folder, loader="ffcv", train=True, batch_size=8, size=32)


def test_ffcv_resumes_anywhere_splits_over_ranks_and_leaks_nothing(mixed):
    """The checks that test_loaders.py makes for decoders of folders."""
    source = open_dataset("imagenet", "val", mixed)
    kw = {"loader": "ffcv", "train": True, "size": 32, "seed": 6}
    used, threads = [], threading.active_count()
    with make_loader(source, batch_size=8, **kw) as loader:
        whole = list(loader.batches())
        for done in (1, 7, 14):
            for a, b in zip(loader.batches(done * 8), whole[done:], strict=True):
                assert torch.equal(a.indices, b.indices)
                assert torch.equal(a.images, b.images)
        for _ in range(20):
            for _ in loader.batches():
                pass
            used.append(resident_memory())
    for _ in range(5):
        with make_loader(source, batch_size=8, **kw) as left:
            next(left.batches())
    assert threading.active_count() <= threads
    assert min(used[-5:]) - max(used[3:8]) < 4 << 20, [u >> 20 for u in used]
    eight = []
    for rank in range(8):
        with make_loader(source, batch_size=1, rank=rank, world=8, **kw) as loader:
            eight.append(next(loader.batches()))
    assert torch.equal(torch.cat([b.indices for b in eight]), whole[0].indices)
    assert torch.equal(torch.cat([b.images for b in eight]), whole[0].images)


def test_raw_and_jpeg_modes_are_ffcvs(mixed):
    from ffcv.fields.rgb_image import IMAGE_MODES

    assert (IMAGE_MODES["jpg"], IMAGE_MODES["raw"]) == (JPEG, RAW)


@pytest.mark.slow
@pytest.mark.parametrize(
    "load",
    [
        "from fastreg.pipelines.decode_ffcv import library; library(); ",
        "from fastreg.benchmarks.peers import need; need('ffcv'); ",
    ],
)
def test_ffcv_leaves_torch_its_threads(load):
    """Importing FFCV sets them to one, which halved the speed of a training on two cores."""
    words = "import torch; torch.set_num_threads(3); " + load
    done = subprocess.run(
        [sys.executable, "-c", words + "print(torch.get_num_threads())"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == "3"
