"""The suites beyond the paper: from the logits of a plain forward pass, by formulas and by torchmetrics and SciPy."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastreg import metrics
from fastreg.evaluation import SUITES, evaluate
from fastreg.evaluation.suites import resolve
from fastreg.kernels import philox
from tests.fastreg.evaluation.test_probe import Changed
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, tiny_images, to_pixels
from tests.support import peer


def logits_of(net, images):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        return net((to_pixels(images) - mean) / std)


@pytest.fixture(scope="module")
def card(net):
    images, labels = tiny_images(61, seed=2)
    return evaluate(net, "calibration-extended", (images, labels)), logits_of(net, images), labels


def test_the_calibration_errors_are_those_of_all_images(card):
    card, logits, labels = card
    p = logits.softmax(1)
    confidence, correct = p.amax(1), logits.argmax(1) == labels
    found = card.summary()
    assert found["adaptive_ece"] == pytest.approx(metrics.adaptive_calibration_error(confidence, correct), rel=1e-4)
    assert found["classwise_ece"] == pytest.approx(metrics.classwise_calibration_error(p, labels), rel=1e-4)
    assert found["maximum_ce"] == pytest.approx(metrics.maximum_calibration_error(confidence, correct), rel=1e-4)
    assert found["rms_ce"] == pytest.approx(metrics.rms_calibration_error(confidence, correct), rel=1e-4)
    order = confidence.argsort(descending=True, stable=True)
    risk = (~correct[order]).double().cumsum(0) / torch.arange(1, len(order) + 1)
    assert found["aurc"] == pytest.approx(100 * risk.mean().item(), rel=1e-4)


def halves(n, seed=0):
    """(fitted, scored): of n // 2 images the Philox words of their own index are the smallest."""
    words = philox.words(seed, 0, np.arange(n), 0, "calibration_half")[:, 0] >> 8
    fitted = sorted(np.argsort(words, kind="stable")[: n // 2].tolist())
    return fitted, [index for index in range(n) if index not in fitted]


def test_the_temperature_is_fitted_on_one_half_and_scored_on_the_other(card):
    card, logits, labels = card
    optimize = peer("scipy.optimize")

    def nll(t, rows):
        return nn.functional.cross_entropy(logits[rows].double() / t, labels[rows]).item()

    fitted, scored = halves(61)
    assert (len(fitted), len(scored)) == (30, 31)
    best = optimize.minimize_scalar(lambda log_t: nll(math.exp(log_t), fitted), bounds=(-5, 8), method="bounded")
    found = card.summary()
    assert found["temperature"] == pytest.approx(math.exp(best.x), rel=1e-3)
    assert found["nll_scaled"] == pytest.approx(nll(found["temperature"], scored), rel=1e-5)
    row = card.results("calibration-extended")["calibration-extended"]
    assert row["nll_unscaled"] == pytest.approx(nll(1.0, scored), rel=1e-5)
    p = (logits[scored] / found["temperature"]).softmax(1)
    wanted = metrics.expected_calibration_error(p.amax(1), p.argmax(1) == labels[scored])
    assert found["ece_scaled"] == pytest.approx(wanted, rel=1e-4)
    note = "scaling is fitted on 30 images, a half drawn by Philox from seed 0, and scored on the other 31."
    assert note in " ".join(card.notes())


def test_vector_scaling_is_fitted_on_one_half_and_scored_on_the_other(net):
    images, labels = tiny_images(160, seed=4)
    logits = logits_of(net, images)
    fitted, scored = halves(160, seed=5)
    row = evaluate(net, "calibration-extended", (images, labels), seed=5).results("calibration-extended")
    row = row["calibration-extended"]
    scale, bias = metrics.fit_vector_scaling(logits[fitted], labels[fitted])
    scaled = logits[scored].double() * scale + bias
    assert row["nll_vector"] == pytest.approx(nn.functional.cross_entropy(scaled, labels[scored]).item(), rel=1e-4)
    p = scaled.softmax(1)
    correct = p.argmax(1) == labels[scored]
    assert row["ece_vector"] == pytest.approx(metrics.expected_calibration_error(p.amax(1), correct), rel=1e-3)
    assert row["error_vector"] == pytest.approx(100 * (~correct).double().mean().item())


def test_what_is_scored_takes_no_part_in_a_fit(net):
    """Other labels in the scored half leave the fits; other labels in the fitted half leave the unscaled figures."""
    images, labels = tiny_images(80, seed=4)
    fitted, scored = halves(80)

    def row(rows):
        other = labels.clone()
        other[rows[::2]] = (other[rows[::2]] + 1) % 6
        return evaluate(net, "calibration-extended", (images, other)).results("calibration-extended")

    first, second, third = (row(rows)["calibration-extended"] for rows in ([], scored, fitted))
    assert first["temperature"] == second["temperature"] != third["temperature"]
    assert first["nll_unscaled"] == third["nll_unscaled"] != second["nll_unscaled"]


def test_a_temperature_that_does_not_exist_is_explained(data):
    images, _ = data
    net = Changed(lambda model, x: 1e3 * model.net(x))
    labels = logits_of(net, images).argmax(1)  # all right
    card = evaluate(net, "calibration-extended", (images, labels))
    assert "temperature" not in card.summary()
    assert any("there is no temperature: " in note and "the best T is 0" in note for note in card.notes())


def test_images_without_a_softmax_are_left_out(net, data):
    images, labels = data

    def broken(model, x):
        logits = model.net(x)
        return torch.where(torch.arange(len(x))[:, None] < 3, torch.nan, logits)

    card = evaluate(Changed(broken), "calibration-extended", data, batch_size=len(images))
    logits = logits_of(net, images)[3:]
    wanted = metrics.aurc(logits.softmax(1).amax(1), logits.argmax(1) == labels[3:])
    assert card.summary()["aurc"] == pytest.approx(wanted, rel=1e-4)
    assert any("3 of 30 images gave NaN logits" in note for note in card.notes())


def test_four_scores_tell_a_set_from_the_data(net, tmp_path):
    images, labels = tiny_images(40, size=32)
    other = torch.randint(0, 256, (25, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    (tmp_path / "lsun_resize").mkdir()
    for i, image in enumerate(other):
        Image.fromarray(image.numpy()).save(tmp_path / "lsun_resize" / f"{i:02}.png")
    card = evaluate(net, "ood-scores", (images, labels), ood_dir=tmp_path)
    z_in, z_out = logits_of(net, images).double(), logits_of(net, other).double()
    formulas = {
        "max_softmax": lambda z: z.softmax(1).amax(1),
        "max_logit": lambda z: z.amax(1),
        "energy": lambda z: z.exp().sum(1).log(),
        "entropy": lambda z: (z.softmax(1) * z.softmax(1).log()).sum(1),
    }
    row = card.results("ood-scores")["lsun_resize"]
    assert (row["n"], row["n_in"]) == (25, 40)
    classification = peer("torchmetrics.functional.classification")
    for name, formula in formulas.items():
        inside, outside = formula(z_in), formula(z_out)
        scores, truth = torch.cat((inside, outside)), torch.cat((torch.ones(40), torch.zeros(25))).long()
        ranks = torch.from_numpy(np.unique(scores.numpy(), return_inverse=True)[1]) / len(scores)
        found = row["scores"][name]
        assert found["auroc"] == pytest.approx(100 * classification.binary_auroc(ranks, truth).item(), abs=1e-3)
        wanted = 100 * classification.binary_average_precision(ranks, truth).item()
        assert found["aupr_in"] == pytest.approx(wanted, abs=1e-3)
        wanted = 100 * classification.binary_average_precision(1 - ranks, 1 - truth).item()
        assert found["aupr_out"] == pytest.approx(wanted, abs=1e-3)
        assert found["detection_error"] == pytest.approx(metrics.detection_error(inside, outside), abs=1e-3)
    sets = ("lsun_resize", "gaussian", "uniform")
    rows = card.results("ood-scores")
    mean = sum(rows[name]["scores"]["energy"]["auroc"] for name in sets) / 3
    assert card.summary()["ood_energy_auroc"] == pytest.approx(mean)
    assert any("the means are of 3 of the paper's 7 sets; missing: " in note for note in card.notes())


def test_the_papers_figures_are_the_same_beside_them(net, tmp_path):
    data = tiny_images(20, size=32)
    plain = evaluate(net, "clean,calibration,ood", data).summary()
    more = evaluate(net, "clean,calibration,calibration-extended,ood,ood-scores", data).summary()
    assert {key: more[key] for key in plain} == plain


def test_an_interrupted_evaluation_continues(net, tmp_path, monkeypatch):
    from fastreg.evaluation import ood_scores

    data = tiny_images(20, size=32)
    given = {"suites": "ood-scores,calibration-extended", "data": data, "out": tmp_path}
    whole = evaluate(net, "ood-scores,calibration-extended", data)
    honest = ood_scores._figures

    def killed(*a, **k):
        raise KeyboardInterrupt

    monkeypatch.setattr(ood_scores, "_figures", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(net, **given)
    monkeypatch.setattr(ood_scores, "_figures", honest)
    assert evaluate(net, **given).summary() == whole.summary()


@pytest.mark.parametrize(("data", "size", "other"), [("cifar100", 32, "imagenet"), ("imagenet", 224, "cifar")])
def test_full_is_every_suite_that_fits(data, size, other):
    left_out = {"paper", "full", "autoattack", f"{other}-c", f"{other}-p"}
    assert set(resolve("full", size, data)) == set(SUITES) - left_out


def test_images_that_attacks_leave_as_they_were_are_counted(net, data):
    """Outputs that do not depend on the pixels of some images have no gradient there."""

    def dark(model, x):
        bright = (x.mean((1, 2, 3)) > 0.2)[:, None]
        return torch.where(bright, model.net(x), model.net(x).detach())

    images, _ = data
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    x = (to_pixels(images) - mean) / std
    lost = int((x.mean((1, 2, 3)) <= 0.2).sum())
    assert 0 < lost < 30
    card = evaluate(Changed(dark), "fgsm", data, batch_size=7)
    assert card.results("fgsm")["fgsm"]["zero_gradient"] == lost
    assert any(f"fgsm: the gradient of {lost} of 30 images is zero" in note for note in card.notes())
    assert "zero_gradient" not in evaluate(net, "fgsm", data).results("fgsm")["fgsm"]
    constant = Changed(lambda model, x: model.net((x * 4).round() / 4))
    assert evaluate(constant, "pgd", data).results("pgd")["pgd"]["zero_gradient"] == 30
