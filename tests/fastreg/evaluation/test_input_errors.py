"""Unusual evaluations: other sets, broken outputs, some of the classes, and bad input."""

import json
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from fastreg.errors import InputError, RunError
from fastreg.evaluation import evaluate, from_checkpoint
from tests.fastreg.evaluation.tiny_classifier import CLASSES, MEAN, STD, tiny_images, tiny_net, to_pixels


def test_a_folder_that_cannot_be_written_is_found_before_the_work(net, data, tmp_path, monkeypatch):
    from fastreg.evaluation import conditions

    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(conditions, "clean", lambda *a: pytest.fail("worked for nothing"))
    with pytest.raises(RunError, match="cannot write"):
        evaluate(net, "clean", data, out=tmp_path / "file" / "below")


def test_nan_logits_are_counted_and_named(data):
    class Broken(nn.Module):
        def forward(self, x):
            out = torch.zeros(len(x), CLASSES)
            out[:, 0] = torch.where(x[:, 0, 0, 0] > x[:, 0, 0, 0].median(), torch.nan, 1.0) if len(x) > 1 else 0
            return out

    card = evaluate(Broken(), "clean", data, batch_size=30)
    assert card.results("clean")["clean"]["nonfinite"] == 15
    assert any("clean: 15 of 30 images gave NaN logits, counted as errors" in note for note in card.notes())
    assert math.isfinite(card.summary()["ece"])


class Reshaped(nn.Module):
    """A classifier whose logits are made into something else."""

    def __init__(self, change):
        super().__init__()
        self.net, self.change = tiny_net(), change

    def forward(self, x):
        return self.change(self.net(x))


def strict(path):
    """JSON as its standard has it, without NaN and Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_outputs_that_are_all_nan_have_no_calibration_and_a_note(tmp_path, capsys):
    from fastreg.report import print_scorecard, write_report

    card = evaluate(Reshaped(lambda y: y * math.nan), "clean,fgsm,ood", tiny_images(size=32), out=tmp_path)
    summary = card.summary()
    assert summary == {"clean_error": 100.0, "top5_error": 100.0, "fgsm_error": 100.0}
    notes = card.notes()
    assert "clean: 30 of 30 images gave NaN logits, counted as errors." in notes
    assert any(note.startswith("clean: no image gave logits with a softmax") for note in notes)
    assert "ood uniform: 30 of 30 images gave NaN logits, scored 0, as the least familiar." in notes
    assert "ood uniform: 30 of 30 of the data's images gave NaN logits, scored 0." in notes
    assert card.results("ood")["gaussian"]["detection_error"] is None
    assert strict(tmp_path / "scorecard.json")["summary"] == summary
    print_scorecard(card)
    assert "100.00" in capsys.readouterr().out
    assert write_report([tmp_path]).is_file()


def test_a_masked_class_leaves_valid_json_and_a_note(tmp_path):
    def masked(y):
        y = y.clone()
        y[:, 5] = -math.inf
        return y

    images, labels = tiny_images()
    card = evaluate(Reshaped(masked), "clean", (images, labels), out=tmp_path)
    written = strict(tmp_path / "scorecard.json")
    assert written["suites"]["clean"]["results"]["clean"]["nll"] is None
    assert "nll" not in card.summary()
    assert math.isfinite(card.summary()["brier"])
    masked_out = int((labels == 5).sum())
    assert (
        f"clean: {masked_out} images gave their own class a logit of -inf, so there is no likelihood." in card.notes()
    )


class Named(nn.Module):
    """A model of eight classes; the data has six of them, in another order."""

    def __init__(self, net, order):
        super().__init__()
        self.net, self.order = net, order

    def forward(self, x):
        return self.net(x)[:, self.order]


def test_data_with_some_of_the_models_classes(tmp_path):
    from PIL import Image

    net, (images, labels) = tiny_net(classes=8), tiny_images(24, size=64)
    for i, (image, label) in enumerate(zip(images, labels)):
        folder = tmp_path / "variant" / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).resize((96, 96)).save(folder / f"{i:02}.png")
    names = [f"class{i}" for i in range(8)]
    plain = evaluate(net, "clean", f"folder:{tmp_path}/variant", classes=names, size=64)
    order = [7, 3, 1, 0, 6, 2, 5, 4]
    shuffled = evaluate(Named(net, order), "clean", tmp_path / "variant", classes=[names[i] for i in order], size=64)
    assert plain.summary()["clean_error"] == shuffled.summary()["clean_error"]
    assert plain.data["classes"] == 6
    with pytest.raises(InputError, match="'class0'"):
        evaluate(net, "clean", tmp_path / "variant", classes=["zebra", *names[1:]], size=64)
    with pytest.raises(InputError, match="the model has 8 classes but the data has 6"):
        evaluate(net, "clean", tmp_path / "variant", size=64)


def test_folders_named_by_numbers_are_the_models_outputs(tmp_path):
    """As ImageNetV2's are. In the order of their names 10 and 11 come before 2, and labels follow that order."""
    from PIL import Image

    net, (images, _) = tiny_net(classes=12), tiny_images(24, size=64)
    labels = torch.arange(24) % 12
    for i, (image, label) in enumerate(zip(images, labels)):
        folder = tmp_path / "v2" / str(label.item())
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{i:02}.png")
    named = evaluate(net, "clean", f"folder:{tmp_path}/v2", classes=[f"n{i:08}" for i in range(12)], size=64)
    unnamed = evaluate(net, "clean", f"folder:{tmp_path}/v2", size=64)
    pixels = torch.stack([torch.from_numpy(np.array(image)) for image in decoded(tmp_path / "v2")])
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    guess = net((to_pixels(pixels) - mean) / std).argmax(1)
    wanted = 100 * (guess != torch.tensor([int(f.parent.name) for f in files(tmp_path / "v2")])).double().mean().item()
    assert named.summary()["clean_error"] == unnamed.summary()["clean_error"] == pytest.approx(wanted)
    with pytest.raises(InputError, match="the model has 6 classes but the data's go up to number 11"):
        evaluate(tiny_net(classes=6), "clean", tmp_path / "v2", size=64)


def files(folder):
    return sorted(folder.rglob("*.png"))


def decoded(folder):
    """Resize and center crop as for ImageNet, by Pillow."""
    from PIL import Image

    for file in files(folder):
        with Image.open(file) as image:
            side = round(64 / 0.875)
            big = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
            low = round((side - 64) / 2)
            yield big.crop((low, low, low + 64, low + 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suites": []}, "no suite was named"),
        ({"suites": "imagenetc"}, "did you mean 'imagenet-c'"),
        ({"suites": "imagenet-c", "corruptions": "gausian_noise"}, "did you mean 'gaussian_noise'"),
        ({"suites": "imagenet-c", "severities": [0, 6]}, "severities are 1 to 5"),
        ({"suites": "imagenet-c", "severities": 7}, "severities are 1 to 5"),
        ({"suites": "imagenet-c", "severities": [2.5]}, "`severities` is"),
        ({"suites": "imagenet-c", "severities": 2.5}, "`severities` is"),
        ({"suites": "ood-features", "ood_scores": "energy", "feature_layer": "fc"}, "`feature_layer` fc is for scores"),
        ({"suites": "imagenet-c", "severities": []}, "`severities` is"),
        ({"precision": "int8"}, "unknown `precision` 'int8'"),
        ({"fidelity": "jpeg"}, "unknown `fidelity` 'jpeg'"),
        ({"epsilon": 8.0}, "pixels are in"),
        ({"suites": "cifar-c"}, "cifar-c does not fit 64 px images: use the suite imagenet-c"),
        ({"device": "cuda"}, "PyTorch sees no GPU"),
        ({"device": "foo"}, "`device` foo is not known"),
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"size": 0}, "`size` is 0"),
        ({"suites": "imagenet-c", "imagenet_c_dir": "nowhere"}, "no ImageNet-C folder at nowhere"),
        ({"suites": "ood", "ood_dir": "nowhere"}, "nowhere holds no images"),
        ({"suites": "imagenet-c", "frost_dir": "nowhere", "corruptions": "frost"}, "frost images"),
    ],
)
def test_bad_input_is_one_sentence(net, data, change, message):
    if change.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    arguments = {"suites": "clean", **change}
    with pytest.raises(InputError) as caught:
        evaluate(net, arguments.pop("suites"), data, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: torch.cat([y.flip(0), y]), "float32 [4, 6] for 2 images"),
        (lambda y: y.mean(0, keepdim=True), "float32 [1, 6] for 2 images"),
        (lambda y: y[1:], "float32 [1, 6] for 2 images"),
        (lambda y: y.t(), "float32 [6, 2] for 2 images"),
        (lambda y: y[:, :, None, None], "float32 [2, 6, 1, 1] for 2 images"),
        (lambda y: y[0], "float32 [6] for 2 images"),
        (lambda y: y.to(torch.complex64), "complex64 [2, 6] for 2 images"),
        (lambda y: (y, y), "tuple for 2 images"),
        (lambda y: y if len(y) == 2 else y[1:], "float32 [2, 6] for 3 images"),  # seen with another number of images
    ],
)
@pytest.mark.parametrize("suite", ["clean", "fgsm"])
def test_outputs_that_are_not_one_row_of_logits_per_image(data, change, message, suite):
    with pytest.raises(InputError, match="the model returns " + re.escape(message)):
        evaluate(Reshaped(change), suite, data, batch_size=10)


def test_models_and_images_of_the_wrong_shape(net, data):
    images, labels = data
    with pytest.raises(InputError, match=r"must be an nn\.Module, but is function"):
        evaluate(lambda x: net(x), "clean", data)
    for nothing in ("", "folder:"):
        with pytest.raises(InputError, match="no folder at folder:"):
            evaluate(net, "clean", nothing)
    with pytest.raises(InputError, match=r"or \(images, labels\), but is NoneType"):
        evaluate(net, "clean", None)
    with pytest.raises(InputError, match="labels must be integers, but are float32"):
        evaluate(net, "clean", (images, labels + 0.6))
    with pytest.raises(InputError, match="one tensor of logits"):
        evaluate(nn.Conv2d(3, 6, 3), "clean", data)
    with pytest.raises(InputError, match="labels go up to 5"):
        evaluate(tiny_net(classes=3), "clean", data)
    with pytest.raises(InputError, match="square uint8"):
        evaluate(net, "clean", (images.float(), labels))
    with pytest.raises(InputError, match="29 images"):
        evaluate(net, "clean", (images[1:], labels))
    with pytest.raises(InputError, match="square uint8"):
        evaluate(net, "clean", (labels, labels))
    with pytest.raises(InputError, match="no images"):
        evaluate(net, "clean", (images[:0], labels[:0]))
    with pytest.raises(InputError, match="the smallest is -1"):
        evaluate(net, "clean", (images, labels - 1))
    with pytest.raises(InputError, match="arrays are not resized"):
        evaluate(net, "clean", data, size=32)


@pytest.mark.parametrize("option", ["val_split", "train_split", "val_share", "image_key", "class_map"])
def test_a_folder_has_no_splits_keys_or_class_map(option):
    with pytest.raises(InputError, match=f"`{option}` x does not fit `data` folder:photos, which is a folder of class"):
        from_checkpoint._open("folder:photos", None, {option: "x"})
