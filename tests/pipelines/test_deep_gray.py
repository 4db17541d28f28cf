"""Gray images of more than 8 bits are scaled, not clipped to black and white; 8-bit gray stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastreg.cli.data import data as data_command
from fastreg.pipelines import make_loader, open_dataset, verify, write_beton

RAMP = np.linspace(0, 65535, 48 * 64).reshape(48, 64)
WIDE = RAMP.astype(np.uint16)
SCALED = np.rint(WIDE / 257).astype(np.uint8)
IMAGES = {
    "wide.png": (WIDE, SCALED, "16-bit gray, divided by 257"),
    "wide.tif": (WIDE, SCALED, "16-bit gray, divided by 257"),
    "dark.png": (WIDE // 300, np.rint(WIDE // 300 / 257).astype(np.uint8), "16-bit gray, divided by 257"),
    "unit.tif": ((RAMP / 65535).astype(np.float32), np.rint(RAMP / 257).astype(np.uint8), "gray from 0 to 1"),
    "bytes.tif": ((RAMP / 257).astype(np.float32), np.rint(RAMP / 257).astype(np.uint8), "gray from 0 to 255"),
    "signed.tif": ((RAMP - 32768).astype(np.float32), np.rint(RAMP / 257).astype(np.uint8), "stretched"),
    "long.tif": ((RAMP * 1000).astype(np.int32), np.rint(RAMP / 257).astype(np.uint8), "stretched"),
    "gray.png": (SCALED, SCALED, ""),
    "gray.tif": (SCALED, SCALED, ""),
    "gray.jpg": (np.full((48, 64), 77, np.uint8), np.full((48, 64), 77, np.uint8), ""),
}


def write(root: Path, names=IMAGES) -> Path:
    for k, name in enumerate(names):
        path = root / "val" / f"{k:02d}" / name
        path.parent.mkdir(parents=True)
        Image.fromarray(IMAGES[name][0]).save(path)
    return root


@pytest.mark.parametrize("name", ["folder", "dali"])
def test_every_depth_keeps_its_gray_levels(tmp_path, name):
    source = open_dataset("folder", "val", write(tmp_path))
    with make_loader(source, loader=name, train=False, batch_size=len(IMAGES), size=48, resize=1.0) as loader:
        (batch,) = loader.batches()
    for row, (file, (_, wanted, _)) in enumerate(IMAGES.items()):
        got = batch.images[row].numpy().astype(int)
        assert np.abs(got - wanted[:, 8:56, None]).max() <= 1, file  # the center of 64 columns
        assert (got == got[..., :1]).all()


def test_verify_lists_the_scalings(tmp_path):
    found = verify("folder", write(tmp_path))
    assert found["broken"] == []
    assert sum(found["scaled"].values()) == 7
    for _, _, how in IMAGES.values():
        assert not how or any(how in scaling for scaling in found["scaled"])
    shown = CliRunner().invoke(data_command, ["verify", "folder", "--data-dir", str(tmp_path)])
    assert shown.exit_code == 0
    assert "3 images are read as 16-bit gray, divided by 257" in shown.output
    assert "scaled" not in verify("folder", write(tmp_path / "b", ["gray.png", "gray.jpg"]))


def test_prepare_stores_the_scaled_levels(tmp_path):
    write_beton("folder", write(tmp_path, ["wide.png"]), tmp_path / "val.beton", jpeg_prob=0)
    stored = open_dataset("folder", "val", tmp_path / "val.beton").read(0)
    assert np.array_equal(stored, np.repeat(SCALED[..., None], 3, 2))


def test_values_that_are_no_numbers_are_a_bad_image(tmp_path):
    array = np.zeros((8, 8), np.float32)
    array[3, 3] = np.nan
    (tmp_path / "val" / "a").mkdir(parents=True)
    Image.fromarray(array).save(tmp_path / "val" / "a" / "x.tif")
    ((where, why),) = verify("folder", tmp_path)["broken"]
    assert where.endswith("x.tif")
    assert "finite" in why
