from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.io
from PIL import Image

from fastreg.errors import InputError
from fastreg.pipelines import info, make_loader, open_dataset, verify, write_beton
from fastreg.pipelines.matlab import load_mat

DECODERS = ("folder", "dali")


def small_image(side=96):
    rng = np.random.default_rng(1)
    return Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side * 3 // 4), Image.BICUBIC)


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(small_image(), "JPEG", quality=95, exif=exif)


FORMS = {
    "rgb.jpg": lambda: encoded(small_image(), "JPEG", quality=95),
    "progressive.jpg": lambda: encoded(small_image(), "JPEG", quality=95, progressive=True),
    "gray.jpg": lambda: encoded(small_image().convert("L"), "JPEG", quality=95),
    "cmyk.jpg": lambda: encoded(small_image().convert("CMYK"), "JPEG", quality=95),
    "exif.jpg": rotated,
    "rgb.png": lambda: encoded(small_image(), "PNG"),
    "alpha.png": lambda: encoded(small_image().convert("RGBA"), "PNG"),
    "palette.png": lambda: encoded(small_image().convert("P"), "PNG"),
    "bits16.png": lambda: encoded(Image.fromarray(np.arange(96 * 72, dtype=np.uint16).reshape(72, 96)), "PNG"),
    "rgb.webp": lambda: encoded(small_image(), "WEBP", quality=90),
    "png_named.jpg": lambda: encoded(small_image(), "PNG"),
    "huge.jpg": lambda: encoded(small_image(96).resize((6000, 4500)), "JPEG", quality=70),
    "one_pixel.png": lambda: encoded(Image.new("RGB", (1, 1), (9, 90, 200)), "PNG"),
}


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    root = tmp_path_factory.mktemp("forms")
    for k, (name, make) in enumerate(FORMS.items()):
        folder = root / "val" / f"{k:02d}"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(make())
    return root


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("train", [False, True])
def test_every_image_format_has_the_pixels_of_pillow_and_torchvision(forms, name, train):
    source = open_dataset("folder", "val", forms)
    with make_loader(source, loader=name, train=train, batch_size=len(FORMS), size=48, seed=1) as loader:
        (batch,) = loader.batches()
    with make_loader(source, loader="folder", train=train, batch_size=len(FORMS), size=48, seed=1) as loader:
        (reference,) = loader.batches()
    assert torch_rows(batch.indices) == torch_rows(reference.indices)
    for row, index in enumerate(batch.indices.tolist()):
        if not train:  # torchvision's default loader is Image.open(...).convert("RGB"), EXIF rotation not applied
            image = Image.open(io.BytesIO(source.read(index)))
            if list(FORMS)[index] == "bits16.png":  # which that makes black and white
                image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
            image = image.convert("RGB")
            short, long = 55, int(55 * max(image.size) / min(image.size))
            image = image.resize((long, short), Image.BILINEAR)
            left, top = round((long - 48) / 2), round((short - 48) / 2)
            expected = np.asarray(image.crop((left, top, left + 48, top + 48))).astype(int)
        else:
            expected = reference.images[row].numpy().astype(int)
        difference = np.abs(batch.images[row].numpy() - expected)
        inside = difference[1:-1, 1:-1] if train else difference
        assert inside.max() <= (0 if name == "folder" else 1), (list(FORMS)[index], inside.max())


def torch_rows(tensor):
    return tensor.tolist()


def test_a_decompression_bomb_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    (tmp_path / "val" / "a").mkdir(parents=True)
    (tmp_path / "val" / "a" / "bomb.png").write_bytes(encoded(small_image(), "PNG"))
    found = verify(str(tmp_path))  # a path in the name's place
    assert found == verify("folder", tmp_path)
    assert info(str(tmp_path))["splits"] == info("folder", tmp_path)["splits"]
    assert found["checked"] == 1
    ((where, why),) = found["broken"]
    assert where.endswith("bomb.png")
    assert "decompression bomb" in why


def test_verify_of_a_folder_that_does_not_exist_is_an_error():
    with pytest.raises(InputError, match="nowhere"):
        verify("folder", "nowhere")


@pytest.mark.parametrize("beton", [False, True])
def test_verify_lists_exactly_the_broken_ones(tmp_path, beton):
    for name in ("a/0.jpg", "a/1.jpg", "b/2.jpg", "b/3.jpg"):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FORMS["rgb.jpg"]())
    root = tmp_path
    if beton:
        root = tmp_path / "train.beton"
        write_beton("folder", tmp_path, root, jpeg_prob=1)
        source = open_dataset("folder", "train", root)
        content = bytearray(root.read_bytes())
        for index in (1, 2):
            start, size = int(source.pointers[index]), len(source.stored(index))
            content[start + 300 : start + size] = bytes(size - 300)
        root.write_bytes(content)
    else:
        for name in ("a/1.jpg", "b/2.jpg"):
            (tmp_path / "train" / name).write_bytes(FORMS["rgb.jpg"]()[:900])
    found = verify("folder", root)
    assert found["checked"] == 4
    assert len(found["broken"]) == 2
    assert all(str(which) in where for which, (where, _) in zip((1, 2), found["broken"]))


@pytest.mark.parametrize("settings", [{"raw": 16}, {"jpeg_prob": 1}])
def test_verify_sees_every_changed_byte_of_a_beton_file(tmp_path, settings):
    (tmp_path / "train" / "a").mkdir(parents=True)
    for k in range(3):
        (tmp_path / "train" / "a" / f"{k}.jpg").write_bytes(FORMS["rgb.jpg"]())
    to = tmp_path / "train.beton"
    write_beton("folder", tmp_path, to, **settings)
    assert verify("folder", to)["broken"] == []
    source = open_dataset("folder", "train", to)
    content = bytearray(to.read_bytes())
    content[int(source.pointers[1]) + 500] ^= 4  # a JPEG that still decodes; a canvas always does
    to.write_bytes(content)
    ((where, why),) = verify("folder", to)["broken"]
    assert where.startswith("sample 1 of ")
    assert "checksum" in why


def test_info_describes_the_stored_set(data):
    found = info("imagenet", data / "imagenet")
    assert found["sample"]
    assert found["path"] == str(data / "imagenet")
    assert found["splits"]["train"]["images"] == 576
    assert found["splits"]["val"]["per_class"] == (10, 10, 10)
    assert set(found["splits"]["train"]["formats"]) == {"JPEG"}
    low, middle, high = found["splits"]["train"]["sides"]
    assert 200 <= low < middle < high <= 500
    assert info("cifar100", data / "cifar100")["splits"]["val"]["sides"] == (32, 32, 32)
    with pytest.raises(InputError):
        info("imagenet", data / "nowhere")


@pytest.mark.parametrize("compress", [False, True])
def test_svhn_is_read_from_its_matlab_files(tmp_path, compress):
    rng = np.random.default_rng(0)
    images, digits = rng.integers(0, 256, (32, 32, 3, 5), np.uint8), np.array([[1], [10], [3], [9], [10]], np.uint8)
    for file in ("train", "test"):
        scipy.io.savemat(tmp_path / f"{file}_32x32.mat", {"X": images, "y": digits}, do_compression=compress)
    source = open_dataset("svhn", "train", tmp_path)
    assert source.labels.tolist() == [1, 0, 3, 9, 0]
    assert np.array_equal(source.read(2), images[..., 2])
    content = (tmp_path / "train_32x32.mat").read_bytes()
    (tmp_path / "train_32x32.mat").write_bytes(content[:-100])
    with pytest.raises(InputError, match=r"train_32x32\.mat is not a whole MATLAB 5 file"):
        open_dataset("svhn", "train", tmp_path)
    (tmp_path / "test_32x32.mat").unlink()
    with pytest.raises(InputError, match="fastreg data fetch svhn"):
        open_dataset("svhn", "test", tmp_path)


def test_structs_cells_and_text_of_matlab_files(tmp_path):
    rows = np.array([(1, "n01", 2.5), (2, "n0244", -1.0)], dtype=[("id", "O"), ("wnid", "O"), ("x", "O")])
    scipy.io.savemat(
        tmp_path / "meta.mat", {"synsets": rows, "few": np.array(["a", 3], dtype=object)}, do_compression=True
    )
    content = load_mat(tmp_path / "meta.mat")
    assert [row["wnid"] for row in content["synsets"]] == ["n01", "n0244"]
    assert [int(row["id"][0, 0]) for row in content["synsets"]] == [1, 2]
    assert content["few"][0] == "a"
