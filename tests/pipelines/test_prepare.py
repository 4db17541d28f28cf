"""`fastreg data prepare`: it stops and continues, refuses impossible arguments, and never leaves half a file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastreg.errors import InputError, RunError
from fastreg.pipelines import open_dataset, verify, write_beton
from fastreg.pipelines.beton import JPEG, RAW
from fastreg.pipelines.beton_write import BetonWriter, Encoded, raw_bytes

PREPARE = """
import os, sys, time
from fastreg.pipelines import write_beton
PACE
write_beton("imagenet", sys.argv[1], sys.argv[2], jpeg_prob=0, workers=1)
"""


# each durable write takes long enough for the signal to arrive before the last
SLOWLY = "sync = os.fsync; os.fsync = lambda file: (time.sleep(0.2), sync(file))[1]"


def test_control_c_while_preparing_then_the_same_command_continues(data, tmp_path):
    whole, path = tmp_path / "whole" / "val.beton", tmp_path / "val.beton"
    write_beton("imagenet", data / "imagenet", whole, jpeg_prob=0)
    journal = path.with_name("val.beton.part.journal")
    child = subprocess.Popen(
        [sys.executable, "-c", PREPARE.replace("PACE", SLOWLY), str(data / "imagenet"), str(path)],
        stderr=subprocess.DEVNULL,
    )
    while not journal.exists() or journal.stat().st_size < 1200:  # some pages are durable
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) != 0
    assert not path.exists()
    with pytest.raises(InputError, match="other settings"):
        write_beton("imagenet", data / "imagenet", path, quality=50)
    write_beton("imagenet", data / "imagenet", path, jpeg_prob=0)
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["val.beton", "whole"]


@pytest.mark.slow
def test_a_full_disk_while_preparing_loses_nothing(data, tmp_path):
    path = tmp_path / "val.beton"
    limit = 20 << 20
    child = subprocess.run(
        [sys.executable, "-c", PREPARE.replace("PACE", ""), str(data / "imagenet"), str(path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        ),
    )
    assert "RunError: cannot write" in child.stderr
    assert "run the same command to continue" in child.stderr
    assert not path.exists()
    made = write_beton("imagenet", data / "imagenet", path, jpeg_prob=0)
    assert made["images"] == 120
    assert len(open_dataset("imagenet", "val", path)) == 120


@pytest.mark.parametrize(
    ("parameter", "arguments"),
    [
        ("`jpeg_prob` is 1.5", {"jpeg_prob": 1.5}),
        ("`quality` is 0", {"quality": 0}),
        ("`max_res` is 0", {"max_res": 0}),
        ("`raw` is 100000", {"raw": 100_000}),
        ("`max_res` is 26755: give 1 to 26754 pixels", {"max_res": 26_755}),
        ("`to` is val.bin", {"to": "val.bin"}),
        ("`on_bad_image` 'skpi'", {"on_bad_image": "skpi"}),
        ("split", {"split": "valid"}),
    ],
)
def test_unusable_arguments_name_the_parameter(data, tmp_path, parameter, arguments):
    with pytest.raises(InputError, match=parameter):
        write_beton("imagenet", data / "imagenet", **{"to": tmp_path / "val.beton", **arguments})
    assert os.listdir(tmp_path) == []


def write_images(folder: Path, *sizes: tuple[int, int], form: str = "png") -> Path:
    """Class ``a`` of ``folder`` with one image of each (width, height)."""
    (folder / "a").mkdir(parents=True)
    for k, size in enumerate(sizes):
        Image.new("RGB", size, (40 * k, 90, 200)).save(folder / "a" / f"{k}.{form}")
    return folder


def begun(path: Path, samples: int = 8) -> BetonWriter:
    """A writer that was stopped after some samples of 100 pixels."""
    writer = BetonWriter(path, {"name": "x"}, 20, 300)
    for k in range(writer.next, samples):
        writer.add(k, 0, raw_bytes(np.full((10, 10, 3), k, np.uint8)))
    writer.flush()
    writer.close()
    return writer


@pytest.mark.parametrize("how", ["cut short", "a byte changed", "gone", "other settings, but no data"])
def test_samples_of_the_journal_count_only_if_the_data_have_them(tmp_path, how):
    path, partial = tmp_path / "x.beton", tmp_path / "x.beton.part"
    pointer = int(begun(path).records[5]["pointer"])
    content = bytearray(partial.read_bytes())
    content[pointer + 7] ^= 1
    if how == "a byte changed":
        partial.write_bytes(content)
    elif how == "cut short":
        partial.write_bytes(content[: pointer + 200])
    else:
        partial.unlink()
    settings = {"name": "y" if how.startswith("other") else "x"}
    writer = BetonWriter(path, settings, 20, 300)
    assert writer.next == (5 if how in ("cut short", "a byte changed") else 0)
    for k in range(writer.next, 8):
        writer.add(k, 0, raw_bytes(np.full((10, 10, 3), k, np.uint8)))
    writer.finish({"classes": ["a"]})
    writer.close()
    source = open_dataset("folder", "train", path)
    assert [int(source.read(k).mean()) for k in range(len(source))] == list(range(8))
    assert [p.name for p in tmp_path.iterdir()] == ["x.beton"]


def test_a_finished_file_is_left_alone_by_its_own_command_and_kept_from_others(tmp_path):
    folder = write_images(tmp_path / "data" / "train", (9, 7), (8, 6))
    to = tmp_path / "train.beton"
    made = write_beton("folder", folder.parent, to, jpeg_prob=1)
    before = to.stat().st_mtime_ns
    assert write_beton("folder", folder.parent, to, jpeg_prob=1) == made
    assert to.stat().st_mtime_ns == before
    for other in ({"jpeg_prob": 0}, {"raw": 8}):
        with pytest.raises(InputError, match="made from other data or with other settings: remove it"):
            write_beton("folder", folder.parent, to, **other)
    Image.new("RGB", (9, 7)).save(folder / "a" / "2.png")
    with pytest.raises(InputError, match="other data"):
        write_beton("folder", folder.parent, to, jpeg_prob=1)
    (tmp_path / "folder.beton").mkdir()
    with pytest.raises(InputError, match="give a file whose name"):
        write_beton("folder", folder.parent, tmp_path / "folder.beton")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "folder.beton", "train.beton"]


def test_no_sample_crosses_a_page_or_has_a_side_too_large_for_the_table(tmp_path):
    root = write_images(tmp_path / "data" / "train", (50, 40), (5000, 5000), (70_000, 3), (30, 20)).parent
    to = tmp_path / "train.beton"
    with pytest.raises(RunError, match=r"a/1\.png: it takes 75,000,000 bytes, more than a page of 67,108,864"):
        write_beton("folder", root, to, max_res=None, jpeg_prob=0)
    (root / "train" / "a" / "1.png").unlink()
    to.with_name("train.beton.part").unlink()
    with pytest.raises(RunError, match=r"a/2\.png: it is 70000 x 3 pixels"):
        write_beton("folder", root, to, max_res=None, jpeg_prob=0)
    assert write_beton("folder", root, to, max_res=None, jpeg_prob=0, on_bad_image="skip")["skipped"] == 1
    assert verify("folder", to) == {"checked": 2, "broken": []}
    with pytest.raises(ValueError, match="a side has 65,535 at most"):
        BetonWriter(tmp_path / "y.beton", {}, 1, 1).check(Encoded(JPEG, 70_000, 3, b""))
    assert raw_bytes(np.zeros((2, 3, 3), np.uint8))[:3] == (RAW, 3, 2)


def test_nothing_is_written_when_no_image_is_good(tmp_path):
    folder = write_images(tmp_path / "data" / "train", (9, 7))
    (folder / "a" / "0.png").write_bytes(b"broken")
    with pytest.raises(RunError, match="there is no image to write"):
        write_beton("folder", folder.parent, tmp_path / "train.beton", on_bad_image="skip")
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_the_split_is_a_word_of_the_file_or_of_the_folder(tmp_path):
    for name in ("data/train", "data/val", "photos", "imagenet-val"):
        write_images(tmp_path / name, (9, 7))

    def split(folder: str, to: str, **more) -> str:
        made = write_beton("imagenet", tmp_path / folder, tmp_path / to, **more)
        source = open_dataset("imagenet", made["split"], tmp_path / to)
        assert (source.about["split"], len(source), source.classes) == (made["split"], 1, ("a",))
        return made["split"]

    assert split("data", "evaluation.beton") == split("data", "carnaval.beton") == "train"
    assert split("data", "imagenet_val_500.beton") == split("data", "my.test.beton") == "val"
    assert split("data/val", "z.beton") == split("imagenet-val", "i.beton") == "val"
    assert split("photos", "photos.beton") == "train"  # class folders directly
    assert split("photos", "p.beton", split="test") == "val"
