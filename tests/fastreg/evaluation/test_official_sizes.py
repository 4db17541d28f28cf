"""Corrupted files of one size for a model of another, and files written at sizes that were never published."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from fastreg.evaluation.corrupt_dataset import corrupt_dataset
from fastreg.evaluation.eval_data import EvalData
from fastreg.kernels import corrupt
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, tiny_net

CHOSEN = {"corruptions": "shot_noise,brightness", "severities": "1"}


@pytest.fixture(scope="module")
def official(imagenet, tmp_path_factory):
    """Two corruptions at 224 px, in ImageNet-C's layout and without a manifest."""
    root = tmp_path_factory.mktemp("official") / "c"
    corrupt_dataset(imagenet, root, corruptions=CHOSEN["corruptions"], severities="1", size=224)
    (root / "corrupted.json").unlink()
    return root


def resized(folder, size, filter):
    files = sorted(folder.rglob("*.JPEG"))
    return torch.stack([torch.from_numpy(np.array(Image.open(file).resize((size, size), filter))) for file in files])


@pytest.mark.parametrize(("size", "interpolation"), [(96, "bilinear"), (256, "bicubic")])
def test_official_files_are_resized_as_wholes_and_the_card_says_so(imagenet, official, size, interpolation):
    given = {"imagenet_c_dir": official, "size": size, "interpolation": interpolation}
    card = evaluate(tiny_net(4), "imagenet-c", imagenet, resize_official=True, **given, **CHOSEN)
    images = resized(official / "shot_noise" / "1", size, Image.Resampling[interpolation.upper()])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        logits = tiny_net(4)((images.permute(0, 3, 1, 2).float() / 255 - mean) / std)
    row = card.results("imagenet-c")["shot_noise/1"]
    labels = torch.from_numpy(imagenet.labels)
    assert row["error"] == pytest.approx(100 * (logits.argmax(1) != labels).double().mean().item())
    assert row["nll"] == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-4)
    assert f"imagenet-c: files of 224 px, resized to {size} px" in " ".join(card.notes())
    assert card.suites["imagenet-c"]["settings"]["resized_from"] == 224


def test_without_the_option_files_of_another_size_are_refused(imagenet, official):
    with pytest.raises(InputError, match=r"it is 224 x 224 px, not 96; .* or `resize_official` to resize the files"):
        evaluate(tiny_net(4), "imagenet-c", imagenet, imagenet_c_dir=official, size=96, **CHOSEN)


def test_files_of_the_models_size_are_read_as_ever(imagenet, official):
    given = {"imagenet_c_dir": official, "size": 224, **CHOSEN}
    plain = evaluate(tiny_net(4), "imagenet-c", imagenet, **given)
    card = evaluate(tiny_net(4), "imagenet-c", imagenet, resize_official=True, **given)
    assert card.suites["imagenet-c"]["settings"] == plain.suites["imagenet-c"]["settings"]


def test_sizes_never_published_are_written_by_the_stated_rule(imagenet, tmp_path):
    """The constants of the nearest published size; the manifest and the card say so."""
    corrupt_dataset(imagenet, tmp_path / "c", corruptions="brightness", severities="2", size=96)
    settings = json.loads((tmp_path / "c" / "corrupted.json").read_text())["settings"]
    assert (settings["constants"], settings["frost_scale"]) == ("tiny64", 96 / 64)
    pixels = EvalData(imagenet, 96).decode(World(0, 1, torch.device("cpu")), batch_size=16)
    wanted = corrupt(pixels.images, "brightness", 2, constants="tiny64", jpeg=True)
    stored = resized(tmp_path / "c" / "brightness" / "2", 96, Image.Resampling.NEAREST)
    assert torch.equal(stored, wanted)
    given = {"imagenet_c_dir": tmp_path / "c", "corruptions": "brightness", "severities": "2"}
    for more, size in (({}, 96), ({"resize_official": True}, 64)):
        card = evaluate(tiny_net(4), "imagenet-c", imagenet, size=size, **more, **given)
        (note,) = [note for note in card.notes() if "nearest published size" in note]
        assert "constants tiny64 were made for 64 px, the nearest published size to 96 px, and frost is scaled" in note
    with pytest.raises(InputError, match=r"made with other frost_scale \(1.5, not None\) and data|other data"):
        corrupt_dataset(imagenet, tmp_path / "c", corruptions="brightness", severities="2", size=64)
