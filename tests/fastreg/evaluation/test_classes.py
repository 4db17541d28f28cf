"""Data with some of a model's classes: the outputs that compete can be chosen and are noted, and names are unique."""

import pytest
import torch
from PIL import Image

from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.cuda_graph import CudaGraphForward
from fastreg.evaluation.imagenet_classes import imagenet_classes
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


def test_outputs_that_are_selected_after_their_count_are_those_of_a_captured_model(eight, fake_capture):
    """The probe of the number of outputs must not capture the model with all its outputs."""
    calls = []
    classifier = Classifier(eight, mean=MEAN, std=STD, device=torch.device("cpu"), precision="fp32", batch_size=4)
    classifier.replayed = CudaGraphForward(classifier.module.logits, 4, make=fake_capture(calls))
    classifier.pad_to = 4
    assert classifier.outputs(64) == 8
    assert calls == []
    classifier.module.select(torch.tensor(STORED))
    images, _ = tiny_images(4)
    plain = Classifier(eight, mean=MEAN, std=STD, device=torch.device("cpu"), precision="fp32")
    wanted = plain.images(images)[:, STORED]
    for _ in range(2):
        torch.testing.assert_close(classifier.images(images), wanted)
    assert len(calls) == 1


def test_folders_of_wordnet_ids_are_imagenets_outputs_only_for_its_number_of_outputs(tmp_path):
    images, _ = tiny_images(4, size=32)
    ids = list(imagenet_classes())
    assert (len(ids), ids == sorted(ids), ids[207]) == (1000, True, "n02099601")
    assert len(set(imagenet_classes().values())) == 1000
    for k, image in zip((3, 900), images):
        (tmp_path / ids[k]).mkdir()
        Image.fromarray(image.numpy()).save(tmp_path / ids[k] / "a.png")
    net = tiny_net(classes=1000)
    card = evaluate(net, "clean", tmp_path, size=32, crop_pct=1.0, scored_classes="all")
    logits = error(net, images[:2], torch.tensor([3, 900]), range(1000))
    assert card.summary()["clean_error"] == logits[0]
    assert evaluate(tiny_net(classes=2), "clean", tmp_path, size=32).data["classes"] == 2
    with pytest.raises(InputError, match="the model has 999 classes but the data has 2"):
        evaluate(tiny_net(classes=999), "clean", tmp_path, size=32)
