"""The preparation of images: interpolation and crop, the paper's and that of published weights, noted on the card."""

import json
import sys

import pytest

from fastreg.cli import main
from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from fastreg.evaluation import from_checkpoint as command
from fastreg.evaluation.published_weights import Prepared, published_options
from tests.fastreg.evaluation.test_published_weights import unloaded  # noqa: F401
from tests.fastreg.evaluation.tiny_classifier import tiny_net
from tests.support import peer


def test_another_interpolation_is_on_the_card_and_has_a_card_of_its_own(imagenet, tmp_path):
    given = {"size": 32, "out": tmp_path}
    plain = evaluate(tiny_net(4), "clean", imagenet, **given)
    assert "interpolation" not in plain.data
    card = evaluate(tiny_net(4), "clean", imagenet, interpolation="bicubic", **given)
    assert card.data["interpolation"] == "bicubic"
    assert "images: bicubic instead of bilinear." in card.notes()
    assert card.measuring == "bicubic instead of bilinear"
    assert card.summary()["nll"] != plain.summary()["nll"]
    assert len(list(tmp_path.glob("scorecard*.json"))) == 2


@pytest.mark.parametrize("loader", ["dali", "ffcv"])
def test_loaders_refuse_an_interpolation_that_they_lack(imagenet, loader, monkeypatch):
    from fastreg.pipelines import loader as loaders

    monkeypatch.setattr(loaders, "_require_readable", lambda *a: None)
    with pytest.raises(InputError, match=f"`loader` '{loader}' has no bicubic `interpolation`: use 'folder'"):
        evaluate(tiny_net(4), "clean", imagenet, interpolation="bicubic", loader=loader, size=32)


def test_another_word_is_refused(imagenet):
    with pytest.raises(InputError, match=r"unknown `interpolation` 'cubic'.*did you mean 'bicubic'"):
        evaluate(tiny_net(4), "clean", imagenet, interpolation="cubic")


@pytest.fixture
def given(monkeypatch):
    """The options that the command passes to ``evaluate``."""
    seen = {}
    monkeypatch.setattr(command, "evaluate", lambda *a, **k: seen.update(k))
    return seen


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("timm:resnet18.a1_in1k", {"size": 224, "crop_pct": 224 / 235, "interpolation": "bicubic"}),
        ("torchvision:resnet50", {"size": 224, "crop_pct": 224 / 232, "interpolation": "bilinear"}),
        ("timm:vit_tiny_patch16_384", {"size": 384, "crop_pct": 1.0, "interpolation": "bicubic"}),
    ],
)
def test_weights_are_measured_as_published_on_request(imagenet, tmp_path, unloaded, given, model, options):  # noqa: F811
    data = {"data": f"folder:{imagenet.root}/val", "runs_root": tmp_path}
    command.run(model=model, protocol="published", **data)
    assert options.items() <= given.items()
    card = evaluate(tiny_net(4), "clean", imagenet, size=32, provenance=given["provenance"])
    (note,) = [note for note in card.notes() if note.startswith("weights: ")]
    assert "and measured so, while the paper measures with Resize 256/224, bilinear" in note
    command.run(model=model, protocol="published", crop_pct=0.875, size=options["size"], **data)
    assert given["crop_pct"] == 0.875
    assert given["provenance"].get("protocol") is None


@pytest.mark.parametrize("model", ["timm:resnet18.a1_in1k", "timm:efficientnet_b0.ra_in1k", "torchvision:resnet50"])
def test_the_published_preparation_gives_the_packages_pixels(imagenet, unloaded, model, monkeypatch):  # noqa: F811
    import torch
    from PIL import Image

    from fastreg.distributed import World
    from fastreg.evaluation.eval_data import EvalData
    from fastreg.evaluation.published_weights import load_published

    net, config = load_published(model)
    options = config["prepared"].options
    data = EvalData(imagenet, **options)
    ours = data.decode(World(0, 1, torch.device("cpu")), batch_size=4).images[:3]
    if model.startswith("timm:"):
        theirs = peer("timm.data").create_transform(**peer("timm.data").resolve_model_data_config(net))
    else:
        theirs = peer("torchvision.models").get_model_weights("resnet50").DEFAULT.transforms()
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    for i, image in enumerate(ours):
        x = theirs(Image.open(imagenet.describe(i)).convert("RGB"))
        assert torch.equal((x * std + mean).mul(255).round().byte().permute(1, 2, 0), image)


def test_the_protocol_is_for_published_weights(imagenet, tmp_path):
    (tmp_path / "w.pth").touch()
    with pytest.raises(InputError, match="`protocol` published is for weights that timm and torchvision publish"):
        command.run(weights=tmp_path / "w.pth", model="resnet18", protocol="published")
    with pytest.raises(InputError, match=r"unknown `protocol` 'papers'.*did you mean 'paper'"):
        command.run(model="timm:resnet18", protocol="papers")
    with pytest.raises(InputError, match="bicubic, crop mode squash, which `protocol` published"):
        published_options({"model": "timm:x", "prepared": Prepared(224, 224, "bicubic"), "crop_mode": "squash"})


def test_notes_name_flags_on_the_command_line_and_parameters_in_the_file(imagenet, tmp_path, monkeypatch, capsys):
    (tmp_path / "notes_module.py").write_text(
        "from tests.fastreg.evaluation.tiny_classifier import tiny_net\nnet = tiny_net(6)\n"
    )
    (tmp_path / "data" / "val").mkdir(parents=True)
    for name, folder in (("0", "class0"), ("1", "class1")):
        (tmp_path / "data" / "val" / name).symlink_to(imagenet.root / "val" / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    words = "eval --model notes_module:net --data folder:data --size 32 --out card --device cpu"
    monkeypatch.setattr(sys, "argv", ["fastreg", *words.split()])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "only their outputs compete (--classes)" in capsys.readouterr().out
    assert any(
        "(`scored_classes`)" in note for note in json.loads((tmp_path / "card/scorecard.json").read_text())["notes"]
    )
