"""Evaluation against the real packages: torchattacks, torchmetrics, torchvision, timm, RobustBench."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastreg import metrics
from fastreg.errors import InputError, RunError
from fastreg.evaluation import evaluate, load_classifier
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.corrupt_dataset import corrupt_dataset
from fastreg.evaluation.from_checkpoint import run
from fastreg.kernels.attacks import fgsm_attack
from fastreg.pipelines import open_dataset
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, tiny_images, tiny_net, to_pixels
from tests.support import peer, write_tiny_imagenet

EPSILON = 8 / 255


class EvalModel(nn.Module):
    """Pixels in [0, 1] to logits, as torchattacks and RobustBench take their models."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net((x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1))


@pytest.fixture(scope="module")
def attacked():
    """A model on pixels, 32 of them with labels: a power of two, so that a mean and a sum differ by an exponent."""
    images, labels = tiny_images(32)
    return EvalModel(tiny_net()).eval(), to_pixels(images), labels


def test_fgsm_gives_torchattacks_pixels(attacked):
    model, pixels, labels = attacked
    theirs = peer("torchattacks").FGSM(model, eps=EPSILON)(pixels, labels)
    ours = fgsm_attack(model, pixels, labels, EPSILON)
    assert torch.equal(ours, theirs)
    assert (ours != pixels).float().mean() > 0.9


@pytest.mark.parametrize("steps", [3, 10])
def test_pgd_gives_torchattacks_pixels(attacked, steps):
    model, pixels, labels = attacked
    given = {"alpha": EPSILON / 4, "steps": steps, "random_start": False}
    theirs = peer("torchattacks").PGD(model, eps=EPSILON, **given)(pixels, labels)
    ours = fgsm_attack(model, pixels, labels, EPSILON, steps=steps, step_size=EPSILON / 4)
    # x + clip(d) and clip(x + d) to the ball round differently, by one unit in the last place of a pixel
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2**-23)
    assert (ours - pixels).abs().max() <= EPSILON + 2**-23


def test_the_fgsm_suite_has_torchattacks_error():
    images, labels = tiny_images(48, seed=3)
    net = tiny_net()
    attack = peer("torchattacks").FGSM(EvalModel(net).eval(), eps=EPSILON)
    guesses = EvalModel(net)(attack(to_pixels(images), labels)).argmax(1)
    card = evaluate(net, "fgsm", (images, labels), batch_size=16)
    assert card.summary()["fgsm_error"] == pytest.approx(100 * (guesses != labels).double().mean().item())


@pytest.fixture(scope="module")
def outputs():
    """(probabilities [2000, 10], labels, scores inside and outside with many ties)"""
    generator = torch.Generator().manual_seed(1)
    p = (3 * torch.randn(2000, 10, generator=generator)).softmax(1)
    labels = torch.where(torch.rand(2000, generator=generator) < 0.6, p.argmax(1), 3)
    inside = (40 * torch.rand(700, generator=generator).sqrt()).round() / 40
    outside = (40 * torch.rand(900, generator=generator)).round() / 40
    return p, labels, inside, outside


def test_errors_and_calibration_are_torchmetrics(outputs):
    theirs = peer("torchmetrics.functional.classification")
    p, y, _, _ = outputs
    for k, ours in ((1, metrics.top1_error), (5, metrics.top5_error)):
        accuracy = theirs.multiclass_accuracy(p, y, num_classes=10, average="micro", top_k=k)
        assert ours(p, y) == pytest.approx(100 - 100 * accuracy.item(), abs=1e-4)
    ece = theirs.multiclass_calibration_error(p, y, num_classes=10, n_bins=20)  # no confidence is on an edge
    confidence, guess = p.max(1)
    assert metrics.expected_calibration_error(confidence, guess == y) == pytest.approx(100 * ece.item(), abs=1e-4)
    perplexity = peer("torchmetrics.functional.text").perplexity(p.log()[None], y[None])
    assert metrics.negative_log_likelihood(p, y) == pytest.approx(math.log(perplexity.item()), rel=1e-5)
    squared = peer("torchmetrics.functional.regression").mean_squared_error(p, F.one_hot(y, 10).float())
    assert metrics.brier_score(p, y) == pytest.approx(100 * 10 * squared.item(), rel=1e-5)


def test_detection_is_torchmetrics(outputs):
    theirs = peer("torchmetrics.functional.classification")
    _, _, inside, outside = outputs
    both = torch.cat((inside, outside))
    is_in = torch.cat((torch.ones(len(inside)), torch.zeros(len(outside)))).long()
    assert metrics.auroc(inside, outside) == pytest.approx(100 * theirs.binary_auroc(both, is_in).item(), abs=1e-4)
    for positive, score, label in (("in", both, is_in), ("out", 1 - both, 1 - is_in)):
        area = theirs.binary_average_precision(score, label)
        assert metrics.aupr(inside, outside, positive) == pytest.approx(100 * area.item(), abs=1e-4)
    specificity, _ = theirs.binary_specificity_at_sensitivity(both, is_in, min_sensitivity=0.95)
    assert metrics.fpr95(inside, outside) == pytest.approx(100 - 100 * specificity.item(), abs=1e-4)


@pytest.mark.parametrize(
    ("package", "theirs", "ours"),
    [
        ("torchvision.models", "resnet50", "resnet50"),
        ("torchvision.models", "resnet18", "torchvision:resnet18"),
        ("timm", "resnet18", "resnet18"),  # timm kept torchvision's names
        ("timm", "resnet26t", "timm:resnet26t"),
    ],
)
def test_a_state_dict_of_theirs_gives_their_logits(tmp_path, package, theirs, ours):
    module = peer(package)
    build = module.get_model if package.startswith("torchvision") else module.create_model
    torch.manual_seed(0)
    original = build(theirs, num_classes=7).train()
    with torch.no_grad():
        original(torch.randn(4, 3, 64, 64))  # statistics that are not the initial ones
    torch.save(original.eval().state_dict(), tmp_path / "weights.pth")
    loaded, config = load_classifier(weights=tmp_path / "weights.pth", model=ours, num_classes=7)
    assert config["model"] == ours
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), original(x))


def test_published_weights_of_timm(monkeypatch):
    timm, asked = peer("timm"), []
    honest = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, pretrained=False, **k: (asked.append((name, pretrained)), honest(name, **k))[1],
    )
    net, config = load_classifier(model="timm:inception_v3.tv_in1k")
    assert asked == [("inception_v3.tv_in1k", True)]
    assert (config["model"], config["num_classes"], config["mean"]) == ("timm:inception_v3.tv_in1k", 1000, [0.5] * 3)
    assert not net.training
    with pytest.raises(InputError, match="unknown timm model 'resnet5'"):
        load_classifier(model="timm:resnet5")


def test_published_weights_of_torchvision(monkeypatch):
    models = peer("torchvision.models")
    torch.manual_seed(3)
    theirs = models.resnet18().eval()
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda self, **k: theirs.state_dict(), raising=False)
    net, config = load_classifier(model="torchvision:resnet18")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(net(x), theirs(x))
    assert config["std"] == [0.229, 0.224, 0.225]


def test_published_weights_that_cannot_be_downloaded_are_one_sentence(monkeypatch, imagenet, tmp_path):
    models = peer("torchvision.models")

    def offline(self, **more):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", offline, raising=False)
    with pytest.raises(
        RunError, match=r"of torchvision:resnet18 cannot be downloaded \(OSError: no route to host\)"
    ) as caught:
        load_classifier(model="torchvision:resnet18")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="alone have published weights"):
        load_classifier(model="resnet18")
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda self, **k: models.resnet18().state_dict())
    with pytest.raises(InputError, match="knows ImageNet's 1000 classes but the data has 4"):
        run(model="torchvision:resnet18", data_dir=imagenet.root, runs_root=tmp_path)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    return open_dataset("imagenet", "val", write_tiny_imagenet(tmp_path_factory.mktemp("imagenet"), side=80))


def test_clean_error_is_that_of_torchvisions_reference(imagenet):
    """A model object of torchvision, its own transforms on Pillow images, and the loop of its train.py's evaluate."""
    transforms, models = peer("torchvision.transforms"), peer("torchvision.models")
    torch.manual_seed(0)
    model = models.resnet18(num_classes=4)
    with torch.no_grad():
        model.fc.weight *= 20
        model(torch.randn(8, 3, 64, 64))
    theirs = transforms.Compose([
        transforms.Resize(round(64 / 0.875)), transforms.CenterCrop(64),
        transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float), transforms.Normalize(MEAN, STD),
    ])  # fmt: skip
    folder = peer("torchvision.datasets").ImageFolder(str(imagenet.root / "val"), theirs)
    x, y = torch.stack([image for image, _ in folder]), torch.tensor(folder.targets)
    with torch.inference_mode():
        logits = model.eval()(x)
    row = evaluate(model, "clean", imagenet, size=64, loader="folder").results("clean")["clean"]
    assert row["error"] == pytest.approx(100 * (logits.argmax(1) != y).double().mean().item())
    assert row["nll"] == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)


def test_a_timm_model_object_is_evaluated(imagenet):
    torch.manual_seed(0)
    model = peer("timm").create_model("mobilenetv3_small_050", num_classes=4).eval()
    row = evaluate(model, "clean,fgsm", imagenet, size=64, loader="folder", batch_size=5)
    assert row.results("clean")["clean"]["n"] == len(imagenet)
    assert row.summary()["fgsm_error"] >= row.summary()["clean_error"]


@pytest.mark.slow
def test_robustbench_reads_the_arrays_and_finds_the_same_errors(tmp_path):
    load, accuracy = peer("robustbench.data").load_cifar100c, peer("robustbench.utils").clean_accuracy
    images, labels = (
        np.concatenate([tensor.numpy()] * 50) for tensor in tiny_images(200, size=32)
    )  # it slices by 10 000
    write_cifar100(tmp_path / "cifar", images, labels)
    corrupt_dataset(tmp_path / "cifar", tmp_path / "rb" / "CIFAR-100-C", corruptions="pixelate", batch_size=1000)
    net = tiny_net(classes=100)
    source = open_dataset("cifar100", "val", tmp_path / "cifar")
    folder = tmp_path / "rb" / "CIFAR-100-C"
    card = evaluate(net, "cifar-c", source, corruptions="pixelate", cifar_c_dir=folder, batch_size=500)
    model = Classifier(net, mean=source.mean, std=source.std, device=torch.device("cpu"), precision="fp32").module
    for severity in (1, 4):
        x, y = load(10_000, severity, str(tmp_path / "rb"), False, ["pixelate"])
        theirs = 100 - 100 * accuracy(model, x, y, 500)
        assert card.results("cifar-c")[f"pixelate/{severity}"]["error"] == pytest.approx(theirs, abs=1e-4)


def test_robustbench_reads_the_folders_and_finds_the_same_errors(imagenet, tmp_path, monkeypatch):
    """Its list of 5000 of ImageNet's names is replaced by this set's; reading, labels and counting are its own."""
    load, accuracy = peer("robustbench.data").load_imagenetc, peer("robustbench.utils").clean_accuracy
    transforms = peer("torchvision.transforms")
    folder = tmp_path / "rb" / "ImageNet-C"
    corrupt_dataset(imagenet, folder, corruptions="contrast", severities=[5], size=64)
    listed = sorted(str(f.relative_to(folder / "contrast" / "5")) for f in folder.rglob("*.JPEG"))
    (tmp_path / "ids.txt").write_text("\n".join(listed) + "\n")
    resources = peer("robustbench.loaders").pkg_resources
    monkeypatch.setattr(resources, "resource_filename", lambda *_: str(tmp_path / "ids.txt"))
    x, y = load(len(listed), 5, str(tmp_path / "rb"), False, ["contrast"], transforms.ToTensor())
    assert len(x) == len(imagenet)
    net = tiny_net(classes=4)
    row = evaluate(net, "imagenet-c", imagenet, imagenet_c_dir=folder, corruptions="contrast", severities=[5], size=64)
    theirs = 100 - 100 * accuracy(EvalModel(net), x, y)
    assert row.results("imagenet-c")["contrast/5"]["error"] == pytest.approx(theirs, abs=1e-4)


def write_cifar100(root: Path, images, labels):
    """cifar-100-python with these test images uint8 [n, 32, 32, 3], in its true pickle layout."""
    import pickle

    base = root / "cifar-100-python"
    base.mkdir(parents=True)
    rows = {b"data": images.transpose(0, 3, 1, 2).reshape(len(images), 3072), b"fine_labels": labels.tolist()}
    names = {b"fine_label_names": [f"class{i:02}".encode() for i in range(100)], b"coarse_label_names": [b"all"]}
    for name, content in (("train", rows), ("test", rows), ("meta", names)):
        (base / name).write_bytes(pickle.dumps(content, protocol=2))
