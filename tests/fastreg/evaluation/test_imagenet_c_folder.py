"""An incomplete ImageNet-C folder: stored images are measured, missing ones are named, and there is no total."""

import shutil

import pytest
import torch
from PIL import Image

from fastreg.errors import InputError, RunError
from fastreg.evaluation import evaluate
from fastreg.evaluation.corrupt_dataset import corrupt_dataset
from tests.fastreg.evaluation.tiny_classifier import tiny_images, tiny_net


@pytest.fixture(scope="module")
def made(imagenet, tmp_path_factory):
    out = tmp_path_factory.mktemp("written") / "c"
    corrupt_dataset(imagenet, out, corruptions="brightness", severities=[1, 2], size=64)
    return out


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(made, tmp_path / "c")
    return tmp_path / "c"


def measure(imagenet, folder, **more):
    given = {"size": 64, "corruptions": "brightness", "severities": [1, 2], **more}
    return evaluate(tiny_net(classes=4), "imagenet-c", imagenet, imagenet_c_dir=folder, **given)


def lose_a_class(folder):
    shutil.rmtree(folder / "class1")


def empty_a_class(folder):
    for file in (folder / "class1").iterdir():
        file.unlink()


def rename_a_class(folder):
    (folder / "class1").rename(folder / "class9")


def lose_an_image(folder):
    (folder / "class1" / "val_1_000.JPEG").unlink()


def add_an_image(folder):
    shutil.copy(folder / "class1" / "val_1_000.JPEG", folder / "class1" / "more.JPEG")


def misplace_an_image(folder):
    (folder / "class1" / "val_1_000.JPEG").rename(folder / "class2" / "val_1_000.JPEG")


@pytest.mark.parametrize(
    ("harm", "n", "message"),
    [
        (
            lose_a_class,
            12,
            "12 of 16 images (1 class without images, class1, 4 images lost, such as class1/val_1_000.JPEG)",
        ),
        (empty_a_class, 12, "12 of 16 images (1 class without images, class1, 4 images lost, such as class1/val_1_000"),
        (rename_a_class, 12, "1 folder that is no class, class9"),
        (lose_an_image, 15, "15 of 16 images (1 image lost, class1/val_1_000.JPEG)"),
        (add_an_image, 17, "17 of 16 images (1 image that is not the data's, class1/more.JPEG)"),
        (
            misplace_an_image,
            16,
            "16 of 16 images (1 image lost, class1/val_1_000.JPEG, 1 image that is not the data's, ",
        ),
    ],
)
def test_an_incomplete_condition_is_measured_named_and_counts_as_missing(imagenet, folder, harm, n, message):
    whole = measure(imagenet, folder)
    assert "brightness 1,2,3,4,5" not in " ".join(whole.missing("imagenet-c"))
    assert "brightness 3,4,5" in whole.missing("imagenet-c")
    harm(folder / "brightness" / "2")
    card = measure(imagenet, folder)
    assert "brightness 2,3,4,5" in card.missing("imagenet-c")
    assert card.results("imagenet-c")["brightness/2"]["n"] == n
    assert card.results("imagenet-c")["brightness/1"]["error"] == whole.results("imagenet-c")["brightness/1"]["error"]
    assert any(note.startswith("imagenet-c brightness/2: its files hold") and message in note for note in card.notes())


def test_labels_do_not_shift_when_a_class_is_lost(imagenet, folder):
    """The model reads the class from the hue, so that shifted labels would all be wrong."""
    condition = folder / "brightness" / "1"
    for i, file in enumerate(sorted(condition.rglob("*.JPEG"))):
        Image.new("RGB", (64, 64), (60 * (i // 4), 0, 0)).save(file, quality=95)
    shutil.rmtree(condition / "class1")

    class Hue(torch.nn.Module):
        def forward(self, x):
            hue = x.mean((2, 3))[:, :1] * 255 / 60
            return -((hue - torch.arange(4.0)) ** 2)

    given = {"size": 64, "corruptions": "brightness", "severities": [1], "mean": None, "std": None}
    card = evaluate(Hue(), "imagenet-c", imagenet, imagenet_c_dir=folder, **given)
    assert (
        card.results("imagenet-c")["brightness/1"] | {"n": 12, "error": 0.0}
        == card.results("imagenet-c")["brightness/1"]
    )


def test_conditions_without_an_image_are_missing_and_a_folder_without_any_is_an_error(imagenet, folder):
    for file in (folder / "brightness" / "2").rglob("*.JPEG"):
        file.unlink()
    card = measure(imagenet, folder)
    assert list(card.results("imagenet-c")) == ["brightness/1"]
    assert "brightness 2,3,4,5" in card.missing("imagenet-c")
    for place in (folder / "brightness" / "1").iterdir():
        place.rename(place.with_name(f"n{place.name}"))
    with pytest.raises(InputError, match="none of the corruptions asked for, with images of the data's classes"):
        measure(imagenet, folder)


def test_every_image_must_have_the_size_and_be_an_image(imagenet, folder):
    odd = sorted((folder / "brightness" / "1").rglob("*.JPEG"))[5]  # not the first, the middle or the last
    Image.new("RGB", (70, 64)).save(odd)
    with pytest.raises(RunError, match=rf"{odd.name}: it is 70 x 64 px, not 64"):
        measure(imagenet, folder)
    odd.write_bytes(b"")
    with pytest.raises(RunError, match=f"cannot decode .*{odd.name}"):
        measure(imagenet, folder)
    first = sorted((folder / "brightness" / "1").rglob("*.JPEG"))[0]
    first.write_bytes(b"junk")
    with pytest.raises(RunError, match=f"cannot decode .*{first.name}"):
        measure(imagenet, folder)


def test_names_are_compared_only_for_data_in_folders(folder):
    images, labels = tiny_images(16)
    labels = torch.arange(16) // 4
    card = evaluate(
        tiny_net(classes=4), "imagenet-c", (images, labels), imagenet_c_dir=folder, corruptions="brightness"
    )
    assert not any("its files hold" in note for note in card.notes())
    shutil.rmtree(folder / "brightness" / "1" / "class3")
    with pytest.raises(InputError, match="has 3 classes, the data 4"):
        evaluate(tiny_net(classes=4), "imagenet-c", (images, labels), imagenet_c_dir=folder, corruptions="brightness")
