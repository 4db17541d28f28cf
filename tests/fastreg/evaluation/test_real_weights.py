"""An ImageNet-trained model on images: pixels, logits, errors and attacks against plain PyTorch pipelines."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastreg.cli import main
from fastreg.distributed import World
from fastreg.evaluation import evaluate
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.eval_data import EvalData
from tests.fastreg.evaluation.lite0 import IMAGES, STATS, lite0, write_images
from tests.support import peer

CPU = World(0, 1, torch.device("cpu"))
OUTPUTS = torch.tensor([output for output, _ in IMAGES.values()]).repeat_interleave(3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "val")


@pytest.fixture(scope="module")
def net():
    return lite0().eval()


def prepared(folders, resize=256, size=224, interpolation="bilinear"):
    """float32 [N, 3, S, S] in [0, 1] by torchvision's transforms, in the order of the folders."""
    transforms = peer("torchvision.transforms")
    mode = transforms.InterpolationMode(interpolation)
    steps = transforms.Compose([transforms.Resize(resize, mode), transforms.CenterCrop(size), transforms.PILToTensor()])
    files = sorted(folders.rglob("*.*"))
    return torch.stack([steps(Image.open(file).convert("RGB")) for file in files]).float() / 255


class OnPixels(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x - 0.5) / 0.5)


@pytest.mark.parametrize(
    ("resize", "size", "interpolation"),
    [
        (256, 224, "bilinear"),
        (235, 224, "bicubic"),
        (232, 224, "bilinear"),
        (240, 240, "lanczos"),
        (300, 288, "nearest"),
    ],
)
def test_pixels_are_torchvisions_to_the_bit(folders, resize, size, interpolation):
    data = EvalData(folders, size, size / resize, interpolation)
    ours = data.decode(CPU, batch_size=8).images
    assert torch.equal(ours.permute(0, 3, 1, 2).float() / 255, prepared(folders, resize, size, interpolation))


def test_logits_and_errors_are_those_of_a_plain_pipeline(folders, net):
    pixels = prepared(folders)
    with torch.no_grad():
        wanted = net((pixels - 0.5) / 0.5)
    classifier = Classifier(net, mean=STATS, std=STATS, device=CPU.device, precision="fp32")
    ours = classifier.images(EvalData(folders).decode(CPU, batch_size=16).images)
    # the logits of an image reach 10; other kernels sum in another order
    assert (ours - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert torch.equal(ours.argmax(1), wanted.argmax(1))
    card = evaluate(net, "clean", folders, mean=STATS, std=STATS, scored_classes="all")
    error = 100 * (wanted.argmax(1) != OUTPUTS).double().mean().item()
    assert card.summary()["clean_error"] == pytest.approx(error)
    in_top5 = (wanted.topk(5).indices == OUTPUTS[:, None]).any(1)
    assert card.summary()["top5_error"] == pytest.approx(100 * (~in_top5).double().mean().item())
    assert card.summary()["top5_error"] < 50, "the weights are trained"


def test_five_of_imagenets_classes_belong_to_their_outputs_without_imagenet_on_disk(folders, net):
    with torch.no_grad():
        logits = net((prepared(folders) - 0.5) / 0.5)
    own = OUTPUTS[::3]
    wrong = own[logits[:, own].argmax(1)] != OUTPUTS
    card = evaluate(net, "clean", folders, mean=STATS, std=STATS)
    assert card.summary()["clean_error"] == pytest.approx(100 * wrong.double().mean().item())
    assert any("the data has 5 of the model's 1,000; only their outputs compete" in note for note in card.notes())


@pytest.mark.slow
def test_fgsm_is_torchattacks(folders, net):
    pixels = prepared(folders)
    model = OnPixels(net).eval()
    theirs = peer("torchattacks").FGSM(model, eps=8 / 255)(pixels, OUTPUTS)
    with torch.no_grad():
        wrong = model(theirs).argmax(1) != OUTPUTS
    card = evaluate(net, "fgsm", folders, mean=STATS, std=STATS, scored_classes="all", batch_size=15)
    assert card.summary()["fgsm_error"] == pytest.approx(100 * wrong.double().mean().item())


def test_the_command_line_finds_the_same_errors(folders, net, tmp_path, monkeypatch):
    (tmp_path / "lite0_module.py").write_text("from tests.fastreg.evaluation.lite0 import lite0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = f"eval --model lite0_module:lite0 --data folder:{folders} --classes all"
    words += " --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5"
    monkeypatch.setattr(
        sys, "argv", ["fastreg", *words.split(), "--suite", "clean", "--out", "card", "--device", "cpu"]
    )
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    card = json.loads((tmp_path / "card" / "scorecard.json").read_text())
    given = {"mean": STATS, "std": STATS, "scored_classes": "all"}
    assert card["summary"] == pytest.approx(evaluate(net, "clean", folders, **given).summary())
    assert card["model"]["name"] == "lite0_module:lite0"
    assert np.isfinite(card["summary"]["nll"])
