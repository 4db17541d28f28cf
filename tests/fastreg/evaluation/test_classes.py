"""Data with some of a model's classes: the outputs that compete can be chosen and are noted, and names are unique."""

import pytest
import torch
from PIL import Image

from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, tiny_images, tiny_net, to_pixels

NAMES = [f"class{i}" for i in range(8)]
STORED = [5, 0, 3]  # the model's outputs whose classes have images in the data


@pytest.fixture(scope="module")
def eight():
    return tiny_net(classes=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """(a folder of three classes, its images in order, the model's outputs that are right)"""
    root = tmp_path_factory.mktemp("data") / "variant"
    images, _ = tiny_images(30)
    outputs = torch.tensor(sorted(STORED)).repeat_interleave(10)
    for i, (image, output) in enumerate(zip(images, outputs)):
        (root / NAMES[output]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(root / NAMES[output] / f"{i:02}.png")
    return root, images, outputs


def error(net, images, outputs, competing):
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        logits = net((to_pixels(images) - mean) / std)
    others = torch.ones(logits.shape[1], dtype=torch.bool)
    others[list(competing)] = False
    logits[:, others] = -torch.inf
    confidence = 100 * logits.softmax(1).amax(1).double().mean().item()
    return 100 * (logits.argmax(1) != outputs).double().mean().item(), confidence


@pytest.mark.parametrize(("scored", "competing"), [("subset", sorted(STORED)), ("all", range(8))])
def test_the_outputs_that_compete_can_be_chosen_and_are_noted(eight, folder, scored, competing):
    root, images, outputs = folder
    given = {"classes": NAMES, "size": 64, "crop_pct": 1.0, "scored_classes": scored}
    card = evaluate(eight, "clean,fgsm", root, **given)
    wanted, confidence = error(eight, images, outputs, competing)
    assert card.summary()["clean_error"] == pytest.approx(wanted)
    assert card.summary()["confidence"] == pytest.approx(confidence, rel=1e-5)
    how = {"subset": "only their outputs compete (`scored_classes`)", "all": "all 8 outputs compete"}[scored]
    assert f"classes: the data has 3 of the model's 8; {how}." in card.notes()
    assert card.data["classes"] == 3


def test_the_two_ways_differ_and_do_not_share_a_card(eight, folder, tmp_path):
    root, images, outputs = folder
    assert error(eight, images, outputs, STORED)[0] < error(eight, images, outputs, range(8))[0]
    given = {"classes": NAMES, "size": 64, "out": tmp_path}
    evaluate(eight, "clean", root, **given)
    card = evaluate(eight, "clean", root, scored_classes="all", **given)
    assert card.settings["classes"] == "all"
    assert len(list(tmp_path.glob("scorecard*.json"))) == 2


def test_folders_named_by_numbers_compete_with_all_outputs_too(eight, folder, tmp_path):
    root, images, outputs = folder
    for place in root.iterdir():
        (tmp_path / "v2" / place.name.removeprefix("class")).mkdir(parents=True)
        for file in place.iterdir():
            (tmp_path / "v2" / place.name.removeprefix("class") / file.name).write_bytes(file.read_bytes())
    card = evaluate(eight, "clean", tmp_path / "v2", size=64, crop_pct=1.0, scored_classes="all")
    assert card.summary()["clean_error"] == pytest.approx(error(eight, images, outputs, range(8))[0])


@pytest.mark.parametrize("scored", ["subset", "all"])
def test_data_with_all_classes_has_no_such_note(net, data, scored):
    card = evaluate(net, "clean", data, scored_classes=scored)
    assert not any(note.startswith("classes: ") for note in card.notes())
    assert "classes" not in card.settings
    assert card.summary() == evaluate(net, "clean", data).summary()


def test_a_name_that_stands_for_two_outputs_is_refused(eight, folder):
    twice = [*NAMES[:6], "class3", "class7"]
    with pytest.raises(InputError, match="`classes` has 'class3' twice, for outputs 3 and 6: give unique names"):
        evaluate(eight, "clean", folder[0], classes=twice, size=64)
    elsewhere = [*NAMES[:6], "class7", "class7"]  # of which the data has no image
    assert evaluate(eight, "clean", folder[0], classes=elsewhere, size=64).results("clean")


def test_words_for_the_outputs_are_two(eight, folder):
    with pytest.raises(InputError, match="unknown `scored_classes` 'every'"):
        evaluate(eight, "clean", folder[0], classes=NAMES, scored_classes="every")
