"""Models whose features the suite ood-features scores: their heads, layers and hooks, and those that have none."""

import pytest
import torch
from torch import nn

from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.cuda_graph import CudaGraphForward
from fastreg.evaluation.features import FeatureModel
from fastreg.evaluation.pixel_cache import FloatPixels
from fastreg.models import create_model
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, small_arrays, to_pixels, write_small
from tests.support import peer

SUITE = "ood-features"


@pytest.fixture(scope="module")
def arrays():
    return small_arrays()


class Headless(nn.Module):
    """Its last layer is a convolution."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.last = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 6, 1)

    def forward(self, x):
        return self.last(self.body(x).relu()).mean((2, 3))


def test_a_model_without_a_last_linear_layer(arrays, tmp_path):
    data, fit, _ = arrays
    write_small(tmp_path / "mine")
    options = {"fit_data": fit, "ood_dir": tmp_path}
    card = evaluate(Headless(), SUITE, data, **options)
    assert list(card.results(SUITE)["mine"]["scores"]) == ["max_softmax", "max_logit", "energy", "entropy", "odin"]
    notes = " ".join(card.notes())
    assert (
        "knn, mahalanobis, relative_mahalanobis, react, dice, vim left out: scores from features need a model" in notes
    )
    with pytest.raises(InputError, match="name a layer as `feature_layer`"):
        evaluate(Headless(), SUITE, data, ood_scores="knn", **options)
    card = evaluate(Headless(), SUITE, data, feature_layer="body", **options)
    assert list(card.results(SUITE)["mine"]["scores"])[-3:] == ["knn", "mahalanobis", "relative_mahalanobis"]
    with pytest.raises(
        InputError, match="`feature_layer` neck is no layer of the model: give one of its modules, such as"
    ):
        evaluate(Headless(), SUITE, data, feature_layer="neck", **options)
    with pytest.raises(InputError, match="`ood_scores` knn are fitted to training images: give them as `fit_data`"):
        evaluate(Headless(), SUITE, data, ood_scores="knn", ood_dir=tmp_path)
    with pytest.raises(InputError, match=r"`ood_scores`.*softmax"):
        evaluate(Headless(), SUITE, data, ood_scores="softmax", ood_dir=tmp_path)


def test_exported_programs_have_no_layers(arrays, tmp_path):
    data, fit, net = arrays
    write_small(tmp_path / "mine")
    x = torch.zeros(4, 3, 32, 32)
    exported = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("n", min=2)},)).module()
    card = evaluate(exported, SUITE, data, fit_data=fit, ood_dir=tmp_path)
    notes = " ".join(card.notes())
    assert "left out: scores from features need a model that ends in a linear layer of torch.nn" in notes
    assert "energy" in card.results(SUITE)["mine"]["scores"]


def test_the_features_are_the_input_of_the_head(arrays):
    _, (images, labels), net = arrays
    device = torch.device("cpu")
    classifier = Classifier(net, mean=MEAN, std=STD, device=device, precision="fp32", batch_size=16)
    batch = FloatPixels(to_pixels(images[:5]), labels[:5], torch.arange(5))
    x = classifier.module.normalize(batch.pixels)
    with torch.no_grad():
        wanted = net[:-1](x)
        maps = net[:5](x).mean((2, 3))
    model = FeatureModel(classifier, 32)
    logits, features = model(batch)
    assert model.head is net[-1]
    assert torch.equal(features, wanted)
    assert torch.equal(logits, classifier.pixels(batch.pixels))
    assert torch.allclose(FeatureModel(classifier, 32, "4")(batch)[1], maps, atol=1e-6)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in net.modules())


def test_the_hook_is_in_the_captured_graph(arrays, fake_capture):
    _, (images, labels), net = arrays
    classifier = Classifier(net, mean=MEAN, std=STD, device=torch.device("cpu"), precision="fp32", batch_size=16)
    batches = [FloatPixels(to_pixels(images[k : k + 16]), labels[k : k + 16], torch.arange(16)) for k in (0, 16)]
    plain = FeatureModel(classifier, 32)
    wanted, calls = [plain(batch) for batch in batches], []
    classifier.replayed, classifier.pad_to = CudaGraphForward(classifier.module.logits, 16), 16
    model = FeatureModel(classifier, 32)
    model.run.make = fake_capture(calls)
    for (logits, features), (own_logits, own_features) in zip([model(batch) for batch in batches], wanted):
        assert torch.equal(logits, own_logits)
        assert torch.equal(features, own_features)
    assert calls == [(16, 3, 32, 32)]


@pytest.mark.parametrize("name", ["timm:convnext_atto", "torchvision:mobilenet_v2", "pyramidnet110"])
def test_models_of_others_have_a_head(name):
    peer("torchvision.models")
    peer("timm")
    model = create_model(name, 5).eval()
    classifier = Classifier(model, mean=None, std=None, device=torch.device("cpu"), precision="fp32")
    found = FeatureModel(classifier, 32)
    logits, features = found(FloatPixels(torch.rand(2, 3, 32, 32), torch.zeros(2), torch.arange(2)))
    assert torch.allclose(features @ found.head.weight.T + found.head.bias, logits, atol=1e-4)
