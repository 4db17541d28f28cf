"""Images of sizes that no corrupted set was published for: the nearest constants, scaled frost, a centered square."""

import json

import numpy as np
import pytest
import torch

from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from fastreg.evaluation.conditions import frost_textures, nearest_constants, occlusion
from fastreg.evaluation.pixel_cache import Pixels
from fastreg.kernels import CORRUPTIONS
from tests.fastreg.evaluation.tiny_classifier import tiny_images, tiny_net
from tests.support import write_tiny_imagenet


@pytest.fixture
def textures(monkeypatch):
    """Random textures of the published sizes."""
    from fastreg.pipelines import frost

    rng = np.random.default_rng(0)
    sides = ((1000, 1000), (313, 560), (600, 800), (500, 700), (480, 640))
    textures = [rng.integers(0, 256, (*side, 3), dtype=np.uint8) for side in sides]
    monkeypatch.setattr(frost, "load_frost", lambda folder=None: textures)
    return textures


@pytest.mark.parametrize(
    ("size", "name", "scale"),
    [
        (32, "cifar32", 1), (64, "tiny64", 1), (224, "imagenet224", 1), (299, "imagenet299", 1),
        (16, "cifar32", 0.5), (40, "cifar32", 1.25), (48, "tiny64", 0.75), (96, "tiny64", 1.5),
        (128, "imagenet224", 4 / 7), (192, "imagenet224", 6 / 7), (256, "imagenet224", 8 / 7),
        (288, "imagenet299", 288 / 299),
        (448, "imagenet299", 448 / 299),
    ],
)  # fmt: skip
def test_constants_are_those_of_the_nearest_published_size(size, name, scale, textures):
    assert nearest_constants("auto", size) == (name, pytest.approx(scale))
    assert len(frost_textures(None, size, name, scale)) == 5  # each is larger than the image


def test_named_constants_stay_as_they_are():
    assert nearest_constants("imagenet299", 96) == ("imagenet299", 1.0)
    with pytest.raises(InputError, match="tiny65"):
        nearest_constants("tiny65", 96)


@pytest.mark.parametrize("size", [48, 96])
def test_all_corruptions_run_at_a_size_that_was_never_published_and_the_card_notes_it(size, textures, net):
    images = tiny_images(4, size=size)
    card = evaluate(net, "imagenet-c", images, severities=[2], batch_size=4)
    assert {condition.split("/")[0] for condition in card.results("imagenet-c")} == set(CORRUPTIONS)
    assert card.suites["imagenet-c"]["settings"]["frost_scale"] == size / 64
    message = f"constants tiny64 were made for 64 px, the nearest published size to {size} px, and frost is scaled by"
    assert any(note.startswith(f"imagenet-c: {message}") for note in card.notes())
    published = evaluate(net, "imagenet-c", tiny_images(4), corruptions="fog", severities=[1])
    assert "frost_scale" not in published.suites["imagenet-c"]["settings"]


def stored_run(tmp_path, **settings):
    """A run folder with an untrained model and a tiny data set."""
    from fastreg import files, runs
    from fastreg.models import create_model

    data = write_tiny_imagenet(tmp_path / "data", val=1)
    config = {"dataset": "imagenet", "data_dir": str(data), "model": "resnet18", "model_args": {}, "stem": "imagenet"}
    config |= {"num_classes": 4, "classes": [f"class{i}" for i in range(4)], **settings}
    files.write_json(tmp_path / "run" / "config.json", config)
    state = {"config": config, "model": create_model("resnet18", 4).state_dict()}
    runs.save_checkpoint(tmp_path / "run" / "best.pt", state)
    return tmp_path / "run"


def test_a_run_is_evaluated_with_the_crop_of_its_validation(tmp_path):
    from fastreg.evaluation.from_checkpoint import run

    folder = stored_run(tmp_path, eval_size=32, crop_pct=0.95, interpolation="bicubic")
    card, _ = run(folder, "clean", device="cpu")
    assert (card.data["size"], card.data["crop_pct"], card.data["interpolation"]) == (32, 0.95, "bicubic")
    card, _ = run(folder, "clean", device="cpu", crop_pct=0.875, interpolation="bilinear", out=tmp_path / "other")
    assert card.decoding == ""


@pytest.mark.parametrize(("dataset", "suite"), [("imagenet", "imagenet-c"), ("folder", "paper")])
@pytest.mark.parametrize("size", [24, 32, 36])
def test_the_next_step_that_train_prints_works_for_every_size(dataset, suite, size, textures, tmp_path):
    from fastreg.evaluation.from_checkpoint import run

    stored = stored_run(tmp_path, dataset=dataset, eval_size=size)
    card, folder = run(stored, suite, corruptions="frost,motion_blur", severities="1", device="cpu")
    assert card.data["size"] == size
    suites = json.loads((folder / "scorecard.json").read_text())["suites"].values()
    assert any(len(rows["results"]) == 2 for rows in suites)


def test_imagenet_c_on_arrays_of_cifars_size_is_still_refused(net):
    with pytest.raises(InputError, match="imagenet-c does not fit 32 px images: use the suite cifar-c"):
        evaluate(net, "imagenet-c", tiny_images(4, size=32))


@pytest.mark.parametrize("size", range(20, 40))
def test_the_black_square_is_at_the_center(size):
    seen = {}

    class Classifier:
        def images(self, images, plan):
            seen["box"] = plan.box[0].tolist()

    images = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    occlusion(Classifier(), Pixels(images, torch.zeros(2), torch.arange(2)))
    top, left, bottom, right = seen["box"]
    assert (top, bottom) == (left, right)
    assert bottom - top == size // 2
    assert 0 <= (size - bottom) - top <= 1


def test_a_card_with_the_square_elsewhere_is_not_continued(tmp_path):
    card = evaluate(tiny_net(), "occlusion", tiny_images(4, size=35), out=tmp_path)
    assert card.suites["occlusion"]["settings"] == {"side": 17, "corner": 9}
    assert evaluate(tiny_net(), "occlusion", tiny_images(4, size=36)).suites["occlusion"]["settings"] == {"side": 18}
