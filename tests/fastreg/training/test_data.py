"""The data of a run: both sets, their loaders, and skipped images."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastreg import runs
from fastreg.errors import InputError, RunError
from fastreg.pipelines import info, open_dataset, verify, write_beton
from fastreg.pipelines.beton_write import BetonWriter, raw_bytes
from fastreg.training import Config, train
from tests.fastreg.training import tiny_runs as tiny
from tests.support import peer

pytestmark = pytest.mark.usefixtures("quick")


def bmp(rng) -> bytes:
    """A BMP, so that all files have the same number of bytes."""
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).save(buffer, "BMP")
    return buffer.getvalue()


@pytest.fixture
def folders(tmp_path) -> Path:
    """Two classes: 8 + 8 images to train, 2 + 2 to validate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for label in "ab":
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.bmp").write_bytes(bmp(rng))
    return tmp_path / "data"


def settings(folders: Path, **more) -> Config:
    chosen = {**tiny.settings("none", folders.parent / "runs", folders).__dict__, "color_jitter": 0.0, "lighting": 0.0}
    return Config(**{**chosen, "dataset": "folder", "data_dir": str(folders), **more})


@pytest.mark.parametrize(("split", "what"), [("train", "training"), ("val", "validation")])
def test_a_resumed_run_refuses_other_pixels_in_either_set(folders, split, what):
    train(settings(folders))
    train(settings(folders, epochs=1), resume="auto")
    (folders / split / "a" / "1.bmp").write_bytes(bmp(np.random.default_rng(9)))
    with pytest.raises(InputError, match=rf"\({what}\) of .*fingerprint: 'content \w+' is now 'content \w+'"):
        train(settings(folders), resume="auto")


def prepare(folders: Path, split: str, **more) -> Path:
    to = folders / f"{split}.beton"
    write_beton("folder", folders, to, **{"jpeg_prob": 1, **more})
    return to


def trained(config: Config) -> dict:
    """config.json of a run."""
    return json.loads((train(config) / "config.json").read_text())


def test_settings_that_need_beton_files_use_those_beside_class_folders(folders, messages):
    prepare(folders, "train")
    peer("ffcv")
    found = trained(settings(folders, loader="ffcv", epochs=1, name="ffcv"))
    assert found["loader_used"] == "ffcv"
    assert f"loader of the validation set folder: {folders} contains no val.beton" in messages
    train_set = open_dataset("folder", "train", folders / "train.beton")
    assert found["data_fingerprint"] == train_set.fingerprint
    assert found["val_fingerprint"] == open_dataset("folder", "val", folders).fingerprint
    prepare(folders, "val")
    messages.clear()
    found = trained(settings(folders, loader="ffcv", epochs=1, name="both"))
    assert found["val_fingerprint"] == open_dataset("folder", "val", folders, beton=True).fingerprint
    assert not any("contains no val.beton" in line for line in messages)
    assert (
        trained(settings(folders, order="pages", epochs=1, name="pages"))["data_fingerprint"] == train_set.fingerprint
    )
    plain = trained(settings(folders, epochs=1, name="plain"))
    assert plain["data_fingerprint"] == open_dataset("folder", "train", folders).fingerprint


def test_one_file_is_not_both_sets(folders, tmp_path):
    """A file that fastreg wrote names its split; for other files the two paths are compared."""
    file = prepare(folders, "train")
    with pytest.raises(InputError, match=r"train\.beton holds the train split, not val"):
        train(settings(folders, data_dir=str(file)))
    with pytest.raises(InputError, match="holds the train split"):
        open_dataset("folder", "val", file)
    assert verify("folder", file)["broken"] == []
    os.rename(file, tmp_path / "my.val.beton")  # `info` and `verify` take a file of any name
    assert list(info("folder", tmp_path / "my.val.beton")["splits"]) == ["train"]
    writer = BetonWriter(tmp_path / "other.beton", {}, 8, 3 * 64)
    for k in range(8):
        writer.add(k, k % 2, raw_bytes(np.full((8, 8, 3), 20 * k, np.uint8)))
    writer.finish({})  # without a split, as in files of FFCV's writer
    writer.close()
    with pytest.raises(InputError, match=r"other\.beton would be both training and validation set"):
        train(settings(folders, data_dir=str(tmp_path / "other.beton")))


def test_images_left_out_are_counted_and_named_in_the_log(folders, messages):
    bad = [folders / "train" / "a" / "2.bmp", folders / "train" / "b" / "5.bmp"]
    for file in bad:
        file.write_bytes(file.read_bytes()[:100])
    folder = train(settings(folders, epochs=2, on_bad_image="skip"))
    epochs = [row for row in runs.read_rows(folder / "log.jsonl") if row["kind"] == "epoch"]
    assert [row["skipped"] for row in epochs] == [2, 2]
    assert epochs[-1]["skipped_images"] == [str(file) for file in bad]
    assert f"2 broken images skipped: {bad[0]}, {bad[1]}" in messages


def test_a_bad_validation_image_is_an_error_even_where_training_skips(folders):
    (folders / "val" / "b" / "1.bmp").write_bytes(b"BM")
    with pytest.raises(RunError, match=r"val/b/1\.bmp.*an evaluation cannot"):
        train(settings(folders, on_bad_image="skip"))


def test_a_training_batch_without_a_good_image_ends_the_run_with_one_sentence(folders):
    for file in (folders / "train").rglob("*.bmp"):
        file.write_bytes(b"BM")
    with pytest.raises(RunError, match="a whole batch cannot be skipped"):
        train(settings(folders, on_bad_image="skip"))


@pytest.mark.parametrize("raw", [32, None])
def test_raw_canvases_train_resident_with_any_validation_data(folders, raw):
    for split, form in (("train", {"raw": 32}), ("val", {"raw": raw} if raw else {})):
        prepare(folders, split, **form)
        shutil.rmtree(folders / split)
    found = trained(settings(folders, loader="resident", epochs=1))
    assert found["loader_used"] == "resident"
    folder = trained(settings(folders, loader="folder", epochs=1, name="folder"))
    rows = [runs.read_rows(folders.parent / "runs" / name / "log.jsonl") for name in ("run", "folder")]
    losses = [[row["val_loss"] for row in found if row["kind"] == "epoch"] for found in rows]
    assert losses[0] == losses[1]
    assert folder["val_fingerprint"] == found["val_fingerprint"]
