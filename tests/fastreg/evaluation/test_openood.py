"""Scores, measures and CSV files against stored output of OpenOOD's own code (``golden/make_openood.py``)."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fastreg.distributed import World
from fastreg.evaluation import openood, scores
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.feature_scores import FEATURE_SCORES
from fastreg.evaluation.features import FeatureModel, fit, fit_rows, odin
from fastreg.evaluation.pixel_cache import FloatPixels
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD
from tests.fastreg.evaluation.tiny_classifier import to_pixels

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "openood.npz")
SIDES = ("inside", "outside")
EXTREMES = ("random", "ties", "saturated", "equal", "one", "apart", "reversed")
FITTED = {
    "knn": FEATURE_SCORES["knn"],
    "mds": FEATURE_SCORES["mahalanobis"],
    "rmds": FEATURE_SCORES["relative_mahalanobis"],
    "react": FEATURE_SCORES["react"],
    "dice": FEATURE_SCORES["dice"],
    "vim": partial(FEATURE_SCORES["vim"], dim=8),
}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(48, 24), nn.Linear(24, 5)
        self.load_state_dict({name: torch.from_numpy(GOLDEN[name]) for name in self.state_dict()})

    def forward(self, x):
        return self.head(self.body(x.flatten(1)).relu())


@pytest.fixture(scope="module")
def classifier():
    device = torch.device("cpu")
    return Classifier(Net().eval(), mean=IMAGENET_MEAN, std=IMAGENET_STD, device=device, precision="fp32")


@pytest.fixture(scope="module")
def fitted(classifier):
    """The model with its features, the training features, and the pixels of both sides."""
    images, labels = GOLDEN["train_images"], GOLDEN["train_labels"]
    config = EvalConfig(fit_data=(images, labels), batch_size=100)
    model = FeatureModel(classifier, 4)
    data = EvalData((GOLDEN["inside_images"], GOLDEN["inside_labels"]))
    known = fit(model, fit_rows(config, data), 5, World(0, 1, torch.device("cpu")), config)
    return model, known, {side: to_pixels(torch.from_numpy(GOLDEN[f"{side}_images"])) for side in SIDES}


def close(found, wanted):
    """Up to the rounding of OpenOOD's float32."""
    assert np.allclose(found.double().numpy(), wanted, rtol=2e-4, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", FITTED)
def test_scores_from_features(name, side, fitted):
    model, known, pixels = fitted
    batch = FloatPixels(pixels[side], torch.zeros(len(pixels[side])), torch.arange(len(pixels[side])))
    close(FITTED[name](known)(model(batch)[1]), GOLDEN[f"{name}_{side}"])


@pytest.mark.parametrize("side", SIDES)
def test_scores_from_logits(side, fitted):
    model, _, pixels = fitted
    logits = model(FloatPixels(pixels[side], torch.zeros(len(pixels[side])), torch.arange(len(pixels[side]))))[0]
    close(scores.max_softmax(logits), GOLDEN[f"msp_{side}"])
    close(scores.max_logit(logits), GOLDEN[f"mls_{side}"])


@pytest.mark.parametrize("side", SIDES)
def test_odin(side, classifier, fitted):
    found, wanted = odin(classifier, fitted[2][side]).numpy(), GOLDEN[f"odin_{side}"]
    assert np.abs(found - wanted).max() < 3e-7  # OpenOOD computes probabilities near 1/5 in float32
    assert np.abs(found - 0.2).max() > 1e-4
    assert np.array_equal(classifier.module.net.head.weight.requires_grad, True)


@pytest.mark.parametrize("name", ["msp", "mls", "knn", "mds", "rmds", "react", "dice", "vim"])
def test_measures_of_openoods_scores(name):
    inside, outside = (torch.from_numpy(GOLDEN[f"{name}_{side}"]) for side in SIDES)
    assert openood.measures(inside, outside) == pytest.approx(100 * GOLDEN[f"{name}_metrics"][:4], abs=1e-9)


@pytest.mark.parametrize("name", EXTREMES)
def test_measures_of_extreme_scores(name):
    inside, outside = (torch.from_numpy(GOLDEN[f"extreme_{name}_{side}"]) for side in ("in", "out"))
    assert openood.measures(inside, outside) == pytest.approx(100 * GOLDEN[f"extreme_{name}_metrics"][:4], abs=1e-9)


def test_the_csv_has_openoods_rows(tmp_path):
    groups = {"near": ["ssb_hard", "ninco"], "far": ["inaturalist", "textures", "openimage_o"]}
    found = {"ninco": [3.0, 4.0, 5.0, 6.0], "ssb_hard": [1.0, 2.0, 3.0, 4.0], "textures": [9.0, 9.0, 9.0, 9.0]}
    openood.write_csv(tmp_path, "msp", groups, found, 76.126)
    assert (tmp_path / "ood" / "msp.csv").read_text().splitlines() == [
        ",FPR@95,AUROC,AUPR_IN,AUPR_OUT,ACC",
        "ssb_hard,1.00,2.00,3.00,4.00,76.13",
        "ninco,3.00,4.00,5.00,6.00,76.13",
        "nearood,2.00,3.00,4.00,5.00,76.13",
        "textures,9.00,9.00,9.00,9.00,76.13",  # no row farood: two of its sets are missing
    ]
    openood.write_csv(tmp_path, "none", groups, {"mine": [1.0] * 4}, 1.0)
    assert not (tmp_path / "ood" / "none.csv").exists()
    assert list(csv.DictReader((tmp_path / "ood" / "msp.csv").open()))[2]["AUROC"] == "3.00"
