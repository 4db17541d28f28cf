"""Suites against plain loops, resuming, sharding, and the rules about totals and settings."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from fastreg.evaluation import Scorecard, evaluate
from fastreg.evaluation.suites import resolve
from fastreg.kernels import corrupt
from tests.fastreg.evaluation.tiny_classifier import CLASSES, MEAN, STD, tiny_images, tiny_net, to_pixels
from tests.support import ROOT, write_tiny_imagenet

CHEAP = "brightness,pixelate"  # two corruptions that cost little


def plain_error(net, pixels, labels):
    """A loop anyone would write: float32 NCHW pixels in [0, 1] to percent wrong."""
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        return 100 * (net((pixels - mean) / std).argmax(1) != labels).double().mean().item()


@pytest.fixture(scope="module")
def card(net, data):
    return evaluate(net, "clean,fgsm,occlusion,imagenet-c", data, batch_size=8, corruptions=CHEAP, fidelity="memory")


def test_clean_equals_a_plain_loop(card, net, data):
    images, labels = data
    row = card.results("clean")["clean"]
    assert row["error"] == pytest.approx(plain_error(net, to_pixels(images), labels))
    assert row["n"] == len(labels)
    assert 0 < row["error"] < 100  # a net that is always wrong or right would test nothing


def test_fgsm_equals_a_plain_attack(card, net, data):
    images, labels = data
    x = to_pixels(images).requires_grad_()
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    nn.functional.cross_entropy(net((x - mean) / std), labels).backward()
    attacked = (x + 8 / 255 * x.grad.sign()).clamp(0, 1).detach()
    expected = plain_error(net, attacked, labels)
    assert card.results("fgsm")["fgsm"]["error"] == pytest.approx(expected)
    assert expected > card.summary()["clean_error"]
    assert card.suites["fgsm"]["settings"] == {"epsilon": 8 / 255, "clip": True, "steps": 1}


def test_occlusion_is_a_black_square_before_normalisation(card, net, data):
    images, labels = data
    hidden = to_pixels(images)
    hidden[:, :, 16:48, 16:48] = 0
    assert card.results("occlusion")["occlusion"]["error"] == pytest.approx(plain_error(net, hidden, labels))


def test_corruptions_are_those_of_the_kernels(card, net, data):
    images, labels = data
    for severity in (1, 5):
        done = corrupt(images, "brightness", severity, indices=torch.arange(len(images)))
        expected = plain_error(net, to_pixels(done), labels)
        assert card.results("imagenet-c")[f"brightness/{severity}"]["error"] == pytest.approx(expected)


def test_the_default_fidelity_has_the_jpeg_step(net, data):
    images, labels = data
    card = evaluate(net, "imagenet-c", data, corruptions="gaussian_noise", severities=[5], batch_size=7)
    done = corrupt(images, "gaussian_noise", 5, indices=torch.arange(len(images)), jpeg=True)
    row = card.results("imagenet-c")["gaussian_noise/5"]
    assert row["error"] == pytest.approx(plain_error(net, to_pixels(done), labels))
    assert card.suites["imagenet-c"]["settings"]["fidelity"] == "dataset"
    assert card.suites["imagenet-c"]["settings"]["jpeg"] == 85


def test_pgd_is_at_least_as_strong_as_chance_and_stronger_than_clean(net, data):
    summary = evaluate(net, "clean,pgd", data, batch_size=16).summary()
    assert summary["pgd_error"] > summary["clean_error"]


def test_a_partial_suite_says_what_is_missing_and_has_no_total(card):
    assert "imagenet_c_error" not in card.summary()
    assert "mce" not in card.summary()
    missing = card.missing("imagenet-c")
    assert len(missing) == 13
    assert "brightness" not in missing
    assert any("imagenet-c is partial" in note and "gaussian_noise" in note for note in card.notes())


def full_card(name="imagenet", classes=1000, sample=False):
    """A complete ImageNet-C with ResNet-50's published means."""
    from tests.fastreg.metrics.test_metrics import RESNET50

    rows = {
        f"{n}/{s}": {"n": 50_000, "nonfinite": 0, "error": 100 - a} for n, a in RESNET50.items() for s in range(1, 6)
    }
    clean = {"n": 50_000, "nonfinite": 0, "error": 23.87, "top5_error": 7.1, "nll": 1.0, "ece": 3.7, "brier": 33.0}
    clean["confidence"] = 79.8
    suites = {
        "clean": {"settings": {}, "wanted": ["clean"], "results": {"clean": clean}},
        "imagenet-c": {"settings": {}, "wanted": list(rows), "results": rows},
    }
    data = {"name": name, "classes": classes, "sample": sample, "n": 50_000, "split": "val", "size": 224}
    return Scorecard(model={"name": "resnet50"}, data=data, settings={}, suites=suites)


def test_imagenet_gets_alexnet_normalised_figures_and_nothing_else_does():
    summary = full_card().summary()
    assert summary["mce"] == pytest.approx(76.70, abs=0.005)
    assert summary["relative_mce"] == pytest.approx(105.0, abs=0.06)
    assert summary["ce_noise"] == pytest.approx(81.31, abs=0.005)
    assert summary["imagenet_c_error"] == pytest.approx(60.83, abs=0.005)
    for other in (full_card(sample=True), full_card(classes=200), full_card(name="folder")):
        summary = other.summary()
        assert not {"mce", "relative_mce", "ce_noise", "average"} & set(summary)
        assert summary["imagenet_c_error"] == pytest.approx(60.83, abs=0.005)
    assert any(note.startswith("sample") for note in full_card(sample=True).notes())


def test_settings_that_are_not_the_papers_are_noted(net, data):
    card = evaluate(net, "fgsm,imagenet-c", data, epsilon=4 / 255, corruptions="brightness", fidelity="memory")
    assert any(note.startswith("fgsm: epsilon 0.01569 instead of 8/255") for note in card.notes())
    assert any("fidelity memory" in note for note in card.notes())
    card = evaluate(net, "fgsm", data, clip=False)
    assert any("not clipped" in note for note in card.notes())


def test_the_batch_size_changes_nothing(net, data):
    cards = [
        evaluate(net, "clean,pgd,imagenet-c", data, batch_size=size, corruptions="shot_noise", severities=[3])
        for size in (4, 30)
    ]
    assert cards[0].results("pgd")["pgd"]["error"] == cards[1].results("pgd")["pgd"]["error"]
    first, second = (card.results("imagenet-c")["shot_noise/3"] for card in cards)
    assert first["error"] == second["error"]
    assert first["confidence"] == pytest.approx(second["confidence"], abs=1e-4)


def test_the_model_is_left_as_it_was(data):
    model = tiny_net()
    model.train()
    model[1].eval()
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    before_tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *model.buffers()]
    places = [(t.data_ptr(), t.stride()) for t in before_tensors]
    assert not model[0].weight.is_contiguous(memory_format=torch.channels_last)  # evaluation lays it out so
    evaluate(model, "clean,fgsm", data)
    assert model.training
    assert not model[1].training
    assert all(p.requires_grad for p in model.parameters())
    now = [*model.parameters(), *(p.grad for p in model.parameters()), *model.buffers()]
    assert all(a is b for a, b in zip(before_tensors, now))
    assert places == [(t.data_ptr(), t.stride()) for t in now]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_model_that_takes_pixels(net, data):
    class Own(nn.Module):
        def forward(self, x):
            return net((x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1))

    theirs = evaluate(Own(), "clean,fgsm", data, mean=None, std=None).summary()
    ours = evaluate(net, "clean,fgsm", data).summary()
    assert theirs["clean_error"] == ours["clean_error"]
    assert theirs["fgsm_error"] == ours["fgsm_error"]


def test_bf16_agrees_with_fp32_in_its_predictions(net, data):
    errors = [evaluate(net, "clean,fgsm", data, precision=p).summary()["clean_error"] for p in ("fp32", "bf16")]
    assert abs(errors[0] - errors[1]) <= 100 / len(data[1])  # at most one of the thirty images is on the edge


def test_pixels_that_do_not_fit_are_stored_elsewhere_and_give_the_same(net, tmp_path, monkeypatch):
    from fastreg.evaluation import pixel_cache
    from fastreg.pipelines import open_dataset

    source = open_dataset("imagenet", "val", write_tiny_imagenet(tmp_path, classes=CLASSES))
    usual = evaluate(net, "clean", source, size=64)
    places, honest = [], pixel_cache._storage
    monkeypatch.setattr(pixel_cache, "_free", lambda device: 1000)  # bytes
    monkeypatch.setattr(pixel_cache, "_storage", lambda *a: (found := honest(*a), places.append(found[1]))[0])
    tight = evaluate(net, "clean", source, size=64, batch_size=5)
    assert places == ["scratch file"]
    assert tight.summary()["clean_error"] == usual.summary()["clean_error"]
    assert usual.data["n"] == 4 * CLASSES


def test_paper_means_the_columns_of_that_data_set():
    assert resolve("paper", 32) == ["clean", "fgsm", "occlusion", "cifar-c", "calibration", "confidence", "ood"]
    assert resolve("paper", 224) == ["clean", "fgsm", "occlusion", "imagenet-c", "confidence"]
    assert resolve("paper", 32, "imagenet") == resolve("paper", 224)  # the data's name counts, not its pixels
    assert resolve("paper", 64, "cifar100") == resolve("paper", 32)
    assert resolve("paper", 32, "folder") == resolve("paper", 32, "arrays") == resolve("paper", 32)
    assert resolve(["calibration"], 224) == ["clean", "calibration"]


def test_two_processes_give_what_one_gives(net, tmp_path):
    script = tmp_path / "sharded.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import torch; torch.set_num_threads(1)\n"
        "from fastreg.evaluation import evaluate\n"
        "from tests.fastreg.evaluation.tiny_classifier import tiny_images, tiny_net\n"
        "data = tiny_images(31, size=32)\n"
        "evaluate(tiny_net(), 'clean,fgsm,ood,cifar-c', data, corruptions='shot_noise', severities=[2], batch_size=256,"
        " out=sys.argv[2])\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [*command, str(ROOT), str(tmp_path)], capture_output=True, text=True, cwd=tmp_path, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    two = Scorecard.load(tmp_path / "scorecard.json")
    one = evaluate(
        net,
        "clean,fgsm,ood,cifar-c",
        tiny_images(31, size=32),
        corruptions="shot_noise",
        severities=[2],
        batch_size=256,
    )
    assert two.provenance["world_size"] == 2
    for suite in ("clean", "fgsm", "cifar-c", "ood"):
        for condition, row in one.results(suite).items():
            other = two.results(suite)[condition]
            for key in row.keys() - {"seconds", "bins", "histogram_in", "histogram_out"}:
                assert other[key] == pytest.approx(row[key], abs=1e-6), (suite, condition, key)
