"""Published weights of timm and torchvision: their preparation of images, and the sizes that they take."""

import hashlib

import pytest
import torch
from torch import nn

from fastreg.errors import InputError
from fastreg.evaluation import evaluate, load_classifier
from fastreg.evaluation import from_checkpoint as command
from fastreg.evaluation.published_weights import protocol
from fastreg.models import create_model
from tests.fastreg.evaluation.tiny_classifier import tiny_net
from tests.support import peer, write_tiny_imagenet


@pytest.fixture
def unloaded(monkeypatch):
    """Models of both packages keep their initial weights, so nothing is downloaded. Returns timm's own factory."""
    timm, models = peer("timm"), peer("torchvision.models")
    honest = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **k: honest(name, **k))
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda self, **k: {}, raising=False)
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *a, **k: None)
    monkeypatch.setattr(command, "_imagenet_classes", lambda where: ())
    return honest


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("timm:resnet18.tv_in1k", 224, None),
        ("timm:resnet18.a1_in1k", 224, "published with Resize 235, CenterCrop 224, bicubic; measured as the paper"),
        ("timm:resnet18.a1_in1k", 288, "published with Resize 235, CenterCrop 224, bicubic; measured as the paper"),
        ("torchvision:resnet50", 224, "published with Resize 232, CenterCrop 224, bilinear; measured as the paper"),
        ("torchvision:resnet18", 224, None),
    ],
)
def test_weights_published_with_other_images_are_noted(imagenet, tmp_path, monkeypatch, unloaded, model, size, message):
    given = {}
    monkeypatch.setattr(command, "evaluate", lambda *a, **k: given.update(k))
    command.run(model=model, data=f"folder:{imagenet.root}/val", size=size, runs_root=tmp_path)
    card = evaluate(tiny_net(4), "clean", imagenet, size=32, provenance=given["provenance"])
    notes = [note for note in card.notes() if note.startswith("weights: ")]
    assert [message in note for note in notes] == ([True] if message else [])
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


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("timm:vit_tiny_patch16_224.augreg_in21k", "have a head of 21,843 outputs, not ImageNet's 1000 classes"),
        ("timm:vit_small_patch14_dinov2", "have no classification head, not ImageNet's"),
        ("timm:vit_base_patch16_clip_224.laion2b", "have a head of 512 outputs"),
        ("torchvision:deeplabv3_resnet50", "have a head of 21 outputs"),
        ("torchvision:r3d_18", "have a head of 400 outputs"),
        ("torchvision:raft_small", "have no classification head"),
        ("timm:resnet18.a1_in1kk", "unknown timm model 'resnet18.a1_in1kk': known are resnet18.a1_in1k"),
        ("torchvision:resnet18_", "unknown torchvision model 'resnet18_'"),
    ],
)
def test_weights_that_are_not_of_an_imagenet_classifier_are_refused_by_name(model, message, monkeypatch):
    timm, models = peer("timm"), peer("torchvision.models")
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: pytest.fail("made for nothing"))
    monkeypatch.setattr(models, "get_model", lambda *a, **k: pytest.fail("made for nothing"))
    with pytest.raises(InputError) as caught:
        load_classifier(model=model)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistyped_tag_is_refused_for_a_file_of_weights_too(tmp_path):
    peer("timm")
    with pytest.raises(InputError, match=r"unknown timm model .*did you mean 'resnet18\.a1_in1k'"):
        load_classifier(weights=tmp_path / "w.pth", model="timm:resnet18.a1_in1kk")


@pytest.fixture(scope="module")
def googlenet():
    """torchvision's GoogLeNet in the form of its published weights, with auxiliary heads."""
    torch.manual_seed(0)
    return peer("torchvision.models").get_model("googlenet", weights=None, init_weights=False).eval()


def test_published_googlenet_transforms_its_input_and_has_torchvisions_logits(googlenet, monkeypatch):
    models, x = peer("torchvision.models"), torch.randn(2, 3, 64, 64)
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda self, **k: googlenet.state_dict(), raising=False)
    net, config = load_classifier(model="torchvision:googlenet")
    theirs = models.get_model("googlenet", weights="DEFAULT").eval()
    with torch.no_grad():
        assert torch.equal(net(x), theirs(x))
        assert not torch.equal(net(x), googlenet(x))
    assert net.transform_input
    assert (config["mean"], config["prepared"].resize) == ([0.485, 0.456, 0.406], 256)


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("heads", [True, False], ids=["auxiliary heads", "none"])
def test_a_file_of_googlenet_transforms_its_input_if_it_is_the_published_one(
    googlenet, tmp_path, monkeypatch, published, heads
):
    """A model that was trained with torchvision does not. Auxiliary heads may be present or absent."""
    models, path, x = peer("torchvision.models"), tmp_path / "w.pth", torch.randn(2, 3, 64, 64)
    state = {key: value for key, value in googlenet.state_dict().items() if heads or not key.startswith("aux")}
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8] if published else "0" * 8
    enum = models.get_model_weights("googlenet")
    monkeypatch.setattr(enum.DEFAULT.value, "url", f"https://somewhere/googlenet-{digest}.pth")
    net, _ = load_classifier(weights=path, model="torchvision:googlenet")
    assert net.transform_input is published
    googlenet.transform_input = published
    try:
        with torch.no_grad():
            assert torch.equal(net(x), googlenet(x))
    finally:
        googlenet.transform_input = False


def test_models_with_auxiliary_outputs_are_evaluated_by_their_logits(googlenet):
    images = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    googlenet.train()  # in which it gives a tuple
    card = evaluate(googlenet, "clean", (images, torch.arange(4)))
    assert card.results("clean")["clean"]["n"] == 4
    assert googlenet.training


def test_a_vit_of_another_size_is_refused_before_any_work(tmp_path, imagenet):
    net = peer("timm").create_model("vit_tiny_patch16_224", num_classes=4)
    torch.save(net.state_dict(), tmp_path / "w.pth")
    given = {"weights": tmp_path / "w.pth", "model": "timm:vit_tiny_patch16_224", "data_dir": imagenet.root}
    with pytest.raises(InputError, match=r"timm:vit_tiny_patch16_224 takes images of 224 px only, not 64: give 224"):
        command.run(**given, size=64, runs_root=tmp_path)


@pytest.mark.parametrize("lying_about", [False, True], ids=["no ImageNet", "another ImageNet"])
@pytest.mark.parametrize("classes", [4, 5])
def test_weights_on_a_folder_have_the_classes_of_the_file(imagenet, tmp_path, monkeypatch, classes, lying_about):
    """A data set at ./data/imagenet gives the class names only if it has as many classes as the weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTREG_DATA", raising=False)
    if lying_about:
        write_tiny_imagenet(tmp_path / "data" / "imagenet", classes=12, train=1, val=1)
    torch.save(create_model("resnet18", classes).state_dict(), tmp_path / "w.pth")
    given = {"weights": "w.pth", "model": "resnet18", "data": f"folder:{imagenet.root}/val", "size": 32}
    if classes == 4:
        card, _ = command.run(**given)
        assert (card.data["classes"], card.data["n"]) == (4, 16)
    else:
        with pytest.raises(InputError, match="the model has 5 classes but the data has 4"):
            command.run(**given)
