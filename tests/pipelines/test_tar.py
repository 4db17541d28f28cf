"""ImageNet's tar files: byte-equal to the unpacked folders, and refused if they are cut short."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from fastreg.errors import InputError
from fastreg.pipelines import open_dataset, write_beton


def tar_of(files, compress=""):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compress}") as tar:
        for name, body in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


@pytest.fixture
def published(data, tmp_path):
    """The sample's images in ImageNet's published form: a tar of tars, a flat tar and the development kit."""
    sample = data / "imagenet"
    classes = sorted(p.name for p in (sample / "train").iterdir())
    inner = [
        (f"{c}.tar", tar_of([(p.name, p.read_bytes()) for p in sorted((sample / "train" / c).iterdir())]))
        for c in reversed(classes)
    ]
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    flat = sorted((p for p in (sample / "val").glob("*/*")), key=lambda p: p.name[::-1])
    images = [(f"ILSVRC2012_val_{k:08d}.JPEG", p.read_bytes()) for k, p in enumerate(flat, 1)]
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(tar_of(images))
    ids = {c: 7 + 3 * k for k, c in enumerate(classes)}
    rows = np.array([(i, c) for c, i in ids.items()], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": rows.reshape(-1, 1)}, do_compression=True)
    truth = "".join(f"{ids[p.parent.name]}\n" for p in flat).encode()
    kit = [("kit/data/meta.mat", meta.getvalue()), ("kit/data/ILSVRC2012_validation_ground_truth.txt", truth)]
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar_of(kit, "gz"))
    return tmp_path, [p.parent.name for p in flat]


def test_imagenets_own_tar_files_are_the_unpacked_folders(data, published):
    root, truth = published
    folder, tar = (open_dataset("imagenet", "train", place) for place in (data / "imagenet", root))
    assert tar.fingerprint == folder.fingerprint
    assert tar.classes == folder.classes
    assert tar.labels.tolist() == folder.labels.tolist()
    assert all(tar.read(i) == folder.read(i) for i in range(0, len(tar), 37))
    val = open_dataset("imagenet", "val", root)
    assert val.classes == folder.classes
    assert np.bincount(val.labels).tolist() == [10] * 12
    for i in (0, 50, 119):
        number = int(val.describe(i).split("_")[-1].split(".")[0])
        assert val.classes[val.labels[i]] == truth[number - 1]
        assert val.read(i)[:2] == b"\xff\xd8"
    made = write_beton("imagenet", root, root / "out" / "val.beton", max_res=100)
    assert made["images"] == 120


def cuts(tar: Path) -> dict[str, int]:
    """Places where tarfile, reading member by member, sees an end."""
    with tarfile.open(tar) as outer:
        first, last = (outer.getmembers()[k] for k in (0, -1))
        end = outer.offset
    return {"behind a member": last.offset, "in a header": last.offset + 100, "first": first.offset, "no end": end}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("where", ["behind a member", "in a header", "first", "no end"])
def test_a_tar_that_is_cut_short_is_refused(published, split, where):
    root, _ = published
    tar = root / f"ILSVRC2012_img_{split}.tar"
    content, at = tar.read_bytes(), cuts(tar)[where]
    tar.write_bytes(content[:at])
    with pytest.raises(InputError, match=rf"cannot read .*img_{split}\.tar as ImageNet's tar file .*: fetch it anew"):
        open_dataset("imagenet", split, root)
    if where == "behind a member":  # an end is there, and yet not all of it
        tar.write_bytes(content[:at] + bytes(1024))
        with pytest.raises(InputError, match=r"11 classes, not the 12 of|119 files and .* 120 labels"):
            open_dataset("imagenet", split, root)


def test_a_class_whose_own_tar_is_cut_short_is_refused(data, published):
    root, _ = published
    tar = root / "ILSVRC2012_img_train.tar"
    with tarfile.open(tar) as outer:
        members = [(m.name, outer.extractfile(m).read()) for m in outer]
    with tarfile.open(fileobj=io.BytesIO(members[3][1])) as inner:
        at = inner.getmembers()[20].offset
    members[3] = members[3][0], members[3][1][:at]
    tar.write_bytes(tar_of(members))
    with pytest.raises(InputError, match="it is cut short after"):
        open_dataset("imagenet", "train", root)


@pytest.mark.parametrize("keep", [0, 10, 0.5])
def test_a_development_kit_that_is_cut_short_is_named(published, keep):
    root, _ = published
    kit = root / "ILSVRC2012_devkit_t12.tar.gz"
    content = kit.read_bytes()
    kit.write_bytes(content[: keep if keep != 0.5 else len(content) // 2])
    for split in ("train", "val"):
        with pytest.raises(InputError, match=r"cannot read .*devkit_t12\.tar\.gz as ImageNet's dev") as caught:
            open_dataset("imagenet", split, root)
        assert "\n" not in str(caught.value)
    kit.unlink()
    assert len(open_dataset("imagenet", "train", root)) == 576  # which needs no kit
    with pytest.raises(InputError, match="it holds the classes"):
        open_dataset("imagenet", "val", root)
