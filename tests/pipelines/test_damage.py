"""Damaged JPEGs: Pillow alone decides which are broken, and all other readers agree with it."""

from __future__ import annotations

import io
import sys
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.errors import RunError
from fastreg.pipelines import image, make_loader, open_dataset, verify, write_beton
from fastreg.pipelines.beton import JPEG
from fastreg.pipelines.beton_write import BetonWriter, Encoded


def small_image(rng, **form):
    noise = Image.fromarray(rng.integers(0, 256, (10, 14, 3), np.uint8)).resize((140, 100), Image.BICUBIC)
    buffer = io.BytesIO()
    noise.convert(form.pop("mode", "RGB")).save(buffer, "JPEG", quality=90, **form)
    return buffer.getvalue()


def damaged(rng, data):
    """One of: bytes overwritten, a bit turned in the header or anywhere, bytes left out, the end cut off."""
    data, n = bytearray(data), len(data)
    at, some = int(rng.integers(2, n - 2)), int(rng.integers(1, 100))
    match rng.integers(5):
        case 0:
            data[at : at + some] = rng.integers(0, 256, min(some, n - at), np.uint8).tobytes()
        case 1:
            data[int(rng.integers(0, 600))] = int(rng.integers(256))
        case 2:
            data[at] ^= 1 << int(rng.integers(8))
        case 3:
            del data[at : at + some]
        case 4:
            data[at:] = b"\xff\xd9" * int(rng.integers(2))
    return bytes(data)


def pillow(data):
    """uint8 [H, W, 3], or None where Pillow refuses."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except Exception:
        return None


def write_table(path, samples):
    """A `.beton` file of (storage mode, bytes), whose table gives 140 x 100 pixels for each."""
    writer = BetonWriter(path, {}, len(samples), 3 * 140 * 100)
    for k, (mode, data) in enumerate(samples):
        writer.add(k, 0, Encoded(mode, 140, 100, data))
    writer.finish({"classes": ["a"]})
    writer.close()


@pytest.fixture(scope="module")
def files():
    rng = np.random.default_rng(3)
    forms = ({}, {"progressive": True}, {"subsampling": 0}, {"mode": "L"}, {"restart_marker_blocks": 3})
    whole = [small_image(rng, **form) for form in forms]
    return whole + [damaged(rng, whole[k % len(whole)]) for k in range(300)]


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    root = tmp_path_factory.mktemp("damage")
    (root / "train" / "a").mkdir(parents=True)
    for k, data in enumerate(files):
        (root / "train" / "a" / f"{k:03d}.jpg").write_bytes(data)
    return root


def test_the_pixels_are_pillows(files):
    accepted = 0
    for data in files:
        wanted = pillow(data)
        if wanted is None:
            with pytest.raises(image.ERRORS):
                image.pixels(data, image.header(data).plain)
        else:
            assert np.array_equal(image.pixels(data, image.header(data).plain), wanted)
            accepted += 1
    assert 100 < accepted < 250  # both kinds are there


def test_without_simplejpeg_pillow_decodes(files, monkeypatch):
    monkeypatch.setattr(image, "decode_jpeg", None)
    assert np.array_equal(image.pixels(files[0], True), pillow(files[0]))


def test_other_threads_run_while_a_jpeg_is_decoded(monkeypatch):
    """simplejpeg releases the GIL: another thread counts during the decode. Python itself never switches threads."""
    data = io.BytesIO()
    Image.effect_noise((4000, 3000), 60).convert("RGB").save(data, "JPEG", quality=95)
    decode, count, counted = image.decode_jpeg, 0, []

    def watched(*arguments, **named):
        before = count
        pixels = decode(*arguments, **named)
        counted.append(count - before)
        return pixels

    monkeypatch.setattr(image, "decode_jpeg", watched)
    thread = threading.Thread(target=image.pixels, args=(data.getvalue(), True))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        thread.start()
        while thread.is_alive():
            count += 1
            time.sleep(0)  # releases the GIL
    finally:
        sys.setswitchinterval(interval)
    assert sum(counted) > 0


def test_folder_verify_and_prepare_refuse_what_pillow_refuses(files, folder, tmp_path):
    refused = {k for k, data in enumerate(files) if pillow(data) is None}
    source = open_dataset("folder", "train", folder)
    with make_loader(source, train=True, batch_size=61, size=16, on_bad_image="skip") as loader:
        list(loader.batches())
        assert loader.skipped == refused
    assert {int(where[-7:-4]) for where, _ in verify("folder", folder)["broken"]} == refused
    to = tmp_path / "train.beton"
    made = write_beton("folder", folder, to, max_res=None, jpeg_prob=1, quality=None, on_bad_image="skip")
    assert made["skipped"] == len(refused)
    kept = open_dataset("folder", "train", to)
    for row, k in enumerate(sorted(set(range(len(files))) - refused)):
        assert kept.read(row) == files[k] or not image.header(files[k]).plain


@pytest.mark.parametrize("name", ["ffcv", "folder"])
def test_samples_are_refused_if_pillow_refuses_them_or_the_table_differs(files, tmp_path, name):
    write_table(tmp_path / "train.beton", [(JPEG, data) for data in files])
    source = open_dataset("folder", "train", tmp_path / "train.beton")
    refused = {k for k, data in enumerate(files) if getattr(pillow(data), "shape", ()) != (100, 140, 3)}
    assert refused > {k for k, data in enumerate(files) if pillow(data) is None}
    with make_loader(source, loader=name, train=True, batch_size=61, size=16, on_bad_image="skip") as loader:
        first = list(loader.batches())
        assert loader.skipped == refused
        for a, b in zip(first, loader.batches(), strict=True):  # never what lay in a buffer before
            assert torch.equal(a.images, b.images)


def test_images_that_ffcv_refuses_and_pillow_reads_have_pillows_pixels(files, tmp_path):
    write_table(tmp_path / "train.beton", [(JPEG, data) for data in files])
    source = open_dataset("folder", "train", tmp_path / "train.beton")
    with make_loader(source, loader="ffcv", train=True, batch_size=61, size=16) as loader:
        decoder, room, compared = loader._decoder, np.empty((100, 140, 3), np.uint8), 0
        for k, data in enumerate(files):
            wanted = pillow(data)
            failed = decoder.routines.imdecode(np.frombuffer(data, np.uint8), room, 100, 140, 100, 140)
            if failed and wanted is not None and wanted.shape == room.shape:
                assert np.array_equal(decoder._pixels(k), wanted)
                compared += 1
    assert compared > 20


@pytest.mark.parametrize("name", ["ffcv", "folder", "dali"])
def test_a_jpeg_of_another_size_than_in_the_table_is_named(files, tmp_path, name):
    small = io.BytesIO()
    Image.new("RGB", (70, 50), (200, 30, 30)).save(small, "JPEG")
    write_table(tmp_path / "train.beton", [(JPEG, small.getvalue() if k == 4 else files[0]) for k in range(6)])
    source = open_dataset("folder", "train", tmp_path / "train.beton")
    with (
        make_loader(source, loader=name, train=False, batch_size=3, size=32) as loader,
        pytest.raises(RunError, match=r"sample 4 of .*70 x 50 pixels, and the file's table has 140 x 100"),
    ):
        list(loader.batches())
    assert verify("folder", tmp_path)["broken"][0][0].startswith("sample 4 of ")


@pytest.mark.parametrize("name", ["folder", "dali"])
@pytest.mark.parametrize("how", ["gone", "a folder"])
def test_a_file_that_cannot_be_read_is_a_bad_image(files, tmp_path, name, how):
    (tmp_path / "train" / "a").mkdir(parents=True)
    for k in range(6):
        (tmp_path / "train" / "a" / f"{k}.jpg").write_bytes(files[0])
    source = open_dataset("folder", "train", tmp_path)
    (tmp_path / "train" / "a" / "3.jpg").unlink()
    if how == "a folder":
        (tmp_path / "train" / "a" / "3.jpg").mkdir()
    why = "No such file" if how == "gone" else "Is a directory"
    with (
        make_loader(source, loader=name, train=True, batch_size=3, size=16) as loader,
        pytest.raises(RunError, match=rf"3\.jpg: {why}"),
    ):
        list(loader.batches())
    with make_loader(source, loader=name, train=True, batch_size=3, size=16, on_bad_image="skip") as loader:
        assert sorted(torch.cat([batch.indices for batch in loader.batches()]).tolist()) == [0, 1, 2, 4, 5]


def test_evaluation_goes_past_a_batch_without_a_good_image_training_does_not(files, tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    for k in range(6):
        (tmp_path / "train" / "a" / f"{k}.jpg").write_bytes(files[0] if k != 2 else b"")
    source = open_dataset("folder", "train", tmp_path)
    with make_loader(source, train=False, batch_size=1, size=16, on_bad_image="skip") as loader:
        assert [int(batch.indices) for batch in loader.batches()] == [0, 1, 3, 4, 5]
        assert loader.skipped == {2}
    with (
        make_loader(source, train=True, batch_size=1, size=16, on_bad_image="skip") as loader,
        pytest.raises(RunError, match="a whole batch cannot be skipped"),
    ):
        list(loader.batches())


@pytest.mark.parametrize("name", ["ffcv", "folder", "dali"])
def test_a_sample_stored_in_an_unknown_way_is_named(files, tmp_path, name):
    write_table(tmp_path / "train.beton", [(JPEG if k != 2 else 7, files[0]) for k in range(4)])
    source = open_dataset("folder", "train", tmp_path / "train.beton")
    with (
        make_loader(source, loader=name, train=False, batch_size=2, size=32) as loader,
        pytest.raises(RunError, match=r"sample 2 of .*its storage mode 7 is unknown"),
    ):
        list(loader.batches())
    ((where, why),) = verify("folder", tmp_path)["broken"]
    assert where.startswith("sample 2 of ")
    assert "is unknown" in why
