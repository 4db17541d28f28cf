"""RobustBench's models by name: its data set and threat model, pixels in [0, 1], and the line that installs it."""

import pytest
import torch

from fastreg.errors import InputError, RunError
from fastreg.evaluation import evaluate, load_classifier
from fastreg.models import create_model
from fastreg.models.robustbench import find_entry
from tests.support import peer


@pytest.fixture(scope="module")
def zoo():
    peer("torchvision")
    return peer("robustbench.model_zoo")


@pytest.mark.parametrize(
    ("name", "classes", "found"),
    [
        ("Standard", None, ("cifar10", "Linf")),
        ("L2/Standard", None, ("cifar10", "L2")),
        ("Standard_R50", None, ("imagenet", "Linf")),
        ("corruptions/Standard_R50", 1000, ("imagenet", "corruptions")),
        ("Geirhos2018_SIN", None, ("imagenet", "corruptions")),
        ("Addepalli2021Towards_WRN34", 100, ("cifar100", "Linf")),
    ],
)
def test_a_name_has_its_data_set_and_threat_model(zoo, name, classes, found):
    entry = find_entry(zoo, name, classes)
    assert (entry.dataset, entry.threat) == found
    assert entry.full_name == f"robustbench:{found[1]}/{name.rpartition('/')[2]}"


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("Addepalli2021Towards_WRN34", None, "is there for cifar10 and cifar100: give the number of classes"),
        ("Standart", 10, "unknown RobustBench model for cifar10 'Standart'.*did you mean 'Standard'"),
        ("Standard", 12, "is for cifar10, cifar100, imagenet, not for 12 classes"),
        ("L3/Standard", None, "unknown RobustBench model 'L3/Standard'"),
    ],
)
def test_other_names_are_refused(zoo, name, classes, message):
    with pytest.raises(InputError, match=message):
        find_entry(zoo, name, classes)


def test_a_model_is_evaluated_on_pixels(zoo, monkeypatch):
    utils = peer("robustbench.utils")
    asked = []

    def load_model(name, folder, dataset, threat):
        asked.append((name, dataset, threat))
        torch.manual_seed(0)
        return create_model("resnet18", 10, stem="cifar")

    monkeypatch.setattr(utils, "load_model", load_model)
    net, config = load_classifier(model="robustbench:L2/Standard", num_classes=10)
    assert asked == [("Standard", "cifar10", "L2")]
    assert (config["model"], config["num_classes"]) == ("robustbench:L2/Standard", 10)
    assert config["mean"] is config["std"] is None
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    card = evaluate(net, "clean", (images, torch.arange(4)), mean=config["mean"], std=config["std"])
    assert card.model["mean"] == [0.0] * 3
    assert card.model["std"] == [1.0] * 3


def test_weights_that_cannot_be_downloaded_are_one_sentence(zoo, monkeypatch):
    def offline(*given):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr(peer("robustbench.utils"), "load_model", offline)
    with pytest.raises(RunError, match="of robustbench:Standard cannot be downloaded") as caught:
        load_classifier(model="robustbench:Standard")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_architecture_alone_is_for_training(zoo):
    net = create_model("robustbench:Rice2020Overfitting", 10)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    with pytest.raises(InputError, match="takes no arguments, but got depth"):
        create_model("robustbench:Rice2020Overfitting", 10, depth=3)


def test_without_the_package_its_installation_is_named(monkeypatch):
    import fastreg.models as models

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="robustbench")

    monkeypatch.setattr(models.importlib, "import_module", missing)
    with pytest.raises(InputError, match="needs robustbench, which is not installed: pip install --no-deps robust"):
        load_classifier(model="robustbench:Standard")
