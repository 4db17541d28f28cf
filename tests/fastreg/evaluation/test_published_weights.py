"""Published weights of timm and torchvision: what they were published with, and the sizes they take."""

import pytest
from torch import nn

from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from fastreg.evaluation import from_checkpoint as command
from fastreg.evaluation.load_model import protocol
from tests.fastreg.evaluation.tiny_classifier import tiny_net
from tests.support import peer


@pytest.fixture
def unloaded(monkeypatch):
    """Both packages' models with the weights they are made with: nothing is downloaded. Gives timm's own factory."""
    timm, models = peer("timm"), peer("torchvision.models")
    honest = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **k: honest(name, **k))
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda self, **k: {}, raising=False)
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *a, **k: None)
    monkeypatch.setattr(command, "_imagenet_classes", lambda where: ())
    return honest


@pytest.mark.parametrize(
    ("model", "size", "said"),
    [
        ("timm:resnet18.tv_in1k", 224, None),
        ("timm:resnet18.a1_in1k", 224, "published with Resize 235, CenterCrop 224, bicubic; measured as the paper"),
        ("timm:resnet18.a1_in1k", 288, "published with Resize 235, CenterCrop 224, bicubic; measured as the paper"),
        ("torchvision:resnet50", 224, "published with Resize 232, CenterCrop 224, bilinear; measured as the paper"),
        ("torchvision:resnet18", 224, None),
    ],
)
def test_weights_published_with_other_images_say_so(imagenet, tmp_path, monkeypatch, unloaded, model, size, said):
    given = {}
    monkeypatch.setattr(command, "evaluate", lambda *a, **k: given.update(k))
    command.run(model=model, data=f"folder:{imagenet.root}/val", size=size, runs_root=tmp_path)
    card = evaluate(tiny_net(4), "clean", imagenet, size=32, provenance=given["provenance"])
    notes = [note for note in card.notes() if note.startswith("weights: ")]
    assert [said in note for note in notes] == ([True] if said else [])
    assert protocol(224, 0.875) == (256, 224, "bilinear")


def test_models_of_one_size_name_the_flag(imagenet, tmp_path, unloaded):
    data = f"folder:{imagenet.root}/val"
    with pytest.raises(InputError, match="takes images of 384 px only, not 224: give 384 as `size`"):
        command.run(model="timm:vit_tiny_patch16_384", data=data, runs_root=tmp_path)
    with pytest.raises(InputError, match="takes images of 224 px only, not 64: give 224 as `size`"):
        command.run(model="torchvision:vit_b_16", data=data, size=64, runs_root=tmp_path)
    vit = unloaded("vit_tiny_patch16_224", num_classes=4)  # an object knows nothing of flags: it is asked
    with pytest.raises(InputError, match=r"fails on images of 64 px \(AssertionError: .*give that as `size`"):
        evaluate(vit, "clean", imagenet, size=64)
