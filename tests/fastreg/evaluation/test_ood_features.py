"""The suite ood-features: sets, groups, lists, training images, chosen hyperparameters, scores that are left out."""

import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastreg.errors import InputError
from fastreg.evaluation import evaluate, ood_features
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.features import fit_rows
from fastreg.evaluation.from_checkpoint import run
from fastreg.evaluation.ood_sets import BENCHMARKS, find_sets
from fastreg.evaluation.scorecard import Scorecard
from fastreg.pipelines import open_dataset
from tests.fastreg.evaluation.tiny_classifier import (
    MEAN,
    STD,
    small_arrays,
    tiny_images,
    tiny_net,
    to_pixels,
    write_small,
)
from tests.pipelines.shard_files import write_shards
from tests.support import ROOT, write_tiny_imagenet

SUITE = "ood-features"
NEAR, FAR = ("ssb_hard", "NINCO/NINCO_OOD_classes/lion"), ("iNaturalist/images", "dtd/images/dotted", "openimage_o")


def write(folder, n=6, seed=0, suffix=".png"):
    """Images of several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
        small.resize((90 + 7 * i, 80 + 3 * seed), Image.Resampling.BICUBIC).save(folder / f"{i:02}{suffix}")


@pytest.fixture
def sets(tmp_path):
    """All sets of ImageNet's two groups, as users unpack them."""
    for seed, name in enumerate((*NEAR, *FAR)):
        write(tmp_path / "ood" / name, seed=seed)
    return tmp_path / "ood"


@pytest.fixture(scope="module")
def net4():
    return tiny_net(4)


def logits_of(net, arrays):
    pixels = to_pixels(torch.from_numpy(np.stack(arrays)))
    with torch.no_grad():
        return net((pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1))


def resized(path, size=64):
    """Pillow's resize of the shorter side to size / 0.875, and the center."""
    image, side = Image.open(path).convert("RGB"), int(size / 0.875)
    width, height = image.size
    if width < height:
        image = image.resize((side, int(side * height / width)), Image.Resampling.BILINEAR)
    else:
        image = image.resize((int(side * width / height), side), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def auroc(inside, outside):
    """The share of pairs in the right order, by counting."""
    inside, outside = np.asarray(inside, float), np.asarray(outside, float)
    return 100 * np.mean((inside[:, None] > outside) + 0.5 * (inside[:, None] == outside))


def test_sets_of_natural_size_are_prepared_as_the_data(net4, imagenet, sets):
    options = {"size": 64, "ood_dir": sets, "ood_scores": "max_logit,energy"}
    card = evaluate(net4, SUITE, imagenet, **options)
    rows = card.results(SUITE)
    paths = sorted((sets / "iNaturalist").rglob("*.png"))
    outside = logits_of(net4, [resized(path) for path in paths]).double()
    inside = logits_of(net4, [resized(imagenet.describe(i)) for i in range(len(imagenet))]).double()
    found = rows["inaturalist"]["scores"]
    assert found["max_logit"]["auroc"] == pytest.approx(auroc(inside.amax(1), outside.amax(1)))
    assert found["energy"]["auroc"] == pytest.approx(auroc(inside.logsumexp(1), outside.logsumexp(1)))
    assert (rows["inaturalist"]["n"], rows["inaturalist"]["n_in"]) == (6, len(imagenet))
    assert list(rows)[1:] == ["ssb_hard", "ninco", "inaturalist", "textures", "openimage_o", "gaussian", "uniform"]


def test_only_a_complete_group_has_a_mean(net4, imagenet, sets, tmp_path):
    options = {"size": 64, "ood_dir": sets, "ood_scores": "energy,odin", "out": tmp_path / "out"}
    shutil.rmtree(sets / "dtd")
    card = evaluate(net4, SUITE, imagenet, **options)
    summary, rows = card.summary(), card.results(SUITE)
    near = [rows[name]["scores"]["odin"]["auroc"] for name in ("ssb_hard", "ninco")]
    assert summary["ood_near_odin_auroc"] == pytest.approx(sum(near) / 2)
    assert not any("_far_" in key for key in summary)
    notes = " ".join(card.notes())
    assert "there is no mean of the far sets: textures missing; `fastreg data info ood` lists" in notes
    assert "images: ssb_hard 6 of 49,000, ninco 6 of 5,879" in notes
    assert Scorecard.load(tmp_path / "out" / "scorecard.json").summary() == summary
    lines = (tmp_path / "out" / "ood" / "odin.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["", "ssb_hard", "ninco", "nearood", "inaturalist", "openimage_o"]
    accuracy = f"{100 - rows['data']['error']:.2f}"
    assert all(line.endswith(f",{accuracy}") for line in lines[1:])
    wanted = [f"{value:.2f}" for value in rows["ninco"]["scores"]["odin"]["openood"]]
    assert lines[2].split(",")[1:5] == wanted


def test_openoods_lists_select_the_images(imagenet, tmp_path):
    write(tmp_path / "images_largescale" / "ninco" / "a", n=4)
    lists = tmp_path / "benchmark_imglist" / "imagenet"
    lists.mkdir(parents=True)
    (lists / "test_ninco.txt").write_text("ninco/a/02.png -1\nninco/a/00.png -1\n")
    data = EvalData(imagenet, 64)
    (found,) = find_sets(data, tmp_path)
    assert found.by_list
    assert [path.name for path in found.source.paths] == ["02.png", "00.png"]
    (lists / "test_ninco.txt").write_text("ninco/a/02.png -1\nninco/a/99.png -1\n")
    with pytest.raises(InputError, match=r"lists 2 images, and 1 of them are missing \(such as .*99\.png\)"):
        find_sets(data, tmp_path)
    (lists / "test_ninco.txt").unlink()
    (found,) = find_sets(data, tmp_path)
    assert len(found.source) == 4
    assert not found.by_list


def test_other_folders_are_sets_of_the_user(imagenet, tmp_path):
    write(tmp_path / "mine" / "deep")
    write(tmp_path / "SUN" / "images")
    data = EvalData(imagenet, 64)
    assert [one.name for one in find_sets(data, tmp_path)] == ["sun", "mine"]
    assert [one.name for one in find_sets(data, tmp_path / "mine" / "deep")] == ["deep"]
    arrays = EvalData(tiny_images(6, size=32), 32)  # data without published sets: every folder is one of the user's
    assert [one.name for one in find_sets(arrays, tmp_path)] == ["SUN", "mine"]
    with pytest.raises(InputError, match=r"`ood_dir` .* is not a folder"):
        find_sets(data, tmp_path / "absent")
    write(tmp_path / "data")
    with pytest.raises(InputError, match="has the name data, which another set has: rename it"):
        evaluate(tiny_net(4), SUITE, imagenet, size=64, ood_dir=tmp_path, ood_scores="energy")


def test_the_other_cifar_is_a_near_set(cifar, tmp_path, monkeypatch):
    (tmp_path / "cifar100").symlink_to(cifar)
    monkeypatch.setenv("FASTREG_DATA", str(tmp_path))
    data = EvalData(tiny_images(4, size=32))
    data.source, data.names = open_dataset("cifar100", "val", cifar), ()
    assert [one.name for one in BENCHMARKS["cifar100"] if one.group == "near"] == ["cifar10", "tin"]
    data.source.name = "cifar10"  # as seen from CIFAR-10
    (found,) = find_sets(data, None)
    assert (found.name, len(found.source), found.of.group) == ("cifar100", 20, "near")


def test_the_suite_ood_leaves_sets_of_natural_size_to_this_one(net4, imagenet, sets):
    assert list(evaluate(net4, "ood", imagenet, size=64, ood_dir=sets).results("ood")) == ["gaussian", "uniform"]
    write(sets / "mine")
    with pytest.raises(InputError, match="the suite ood-features resizes others"):
        evaluate(net4, "ood", imagenet, size=64, ood_dir=sets)


@pytest.mark.parametrize("images", [40, 200])
def test_training_images_are_balanced(images):
    labels = np.repeat([0, 1, 2], [60, 30, 5])
    fit = (np.zeros((95, 8, 8, 3), np.uint8), labels)
    data = EvalData((np.zeros((3, 8, 8, 3), np.uint8), np.arange(3)))
    rows = [fit_rows(EvalConfig(fit_data=fit, fit_images=images, seed=seed), data) for seed in (0, 0, 1)]
    counts = np.bincount(rows[0].labels).tolist()
    assert counts == ([60, 30, 5] if images == 200 else [18, 17, 5])
    assert np.array_equal(rows[0].labels, labels[rows[0].rows])
    assert np.array_equal(rows[0].rows, rows[1].rows)
    assert np.array_equal(rows[0].rows, rows[2].rows) == (images == 200)
    assert rows[0].settings(0) == {
        "images": min(95, images),
        "of": 95,
        "per_class": [5, max(counts)],
        "seed": 0,
        "fingerprint": EvalData(fit).describe()["fingerprint"],
    }


def test_training_classes_that_the_data_lacks_are_left_out(imagenet, tmp_path):
    for label in (1, 3):
        write(tmp_path / "some" / f"class{label}")
    data = EvalData(tmp_path / "some", 64)
    rows = fit_rows(EvalConfig(fit_data=imagenet.root, size=64), data)  # its train/
    assert (len(rows.data), len(rows.rows)) == (64, 32)
    assert {imagenet.classes[rows.data.labels[row]] for row in rows.rows} == {"class1", "class3"}
    assert set(rows.labels) == {0, 1}
    with pytest.raises(InputError, match=r"`fit_data` .*absent is not a folder: give one of class folders"):
        fit_rows(EvalConfig(fit_data=tmp_path / "absent", size=64), data)
    write(tmp_path / "none" / "cat")
    with pytest.raises(InputError, match=r"`fit_data` has none of the data's classes \(such as 'class1'\)"):
        fit_rows(EvalConfig(fit_data=tmp_path / "none", size=64), data)


@pytest.fixture(scope="module")
def arrays():
    return small_arrays()


def test_hyperparameters_are_chosen_on_images_that_are_not_scored(arrays, tmp_path):
    data, fit, net = arrays
    write_small(tmp_path / "sets" / "mine")
    held = tmp_path / "held"
    write_small(held)
    write_small(tmp_path / "sets" / "held", n=2, seed=1)
    options = {"fit_data": fit, "ood_dir": tmp_path / "sets", "ood_scores": "knn,react,odin"}
    card = evaluate(net, SUITE, data, ood_val_dir=held, **options)
    row = card.results(SUITE)["data"]
    assert {name: len(found) for name, found in row["validation_auroc"].items()} == {"knn": 2, "react": 4, "odin": 8}
    for name, found in row["validation_auroc"].items():
        best = max(found, key=lambda one: one["auroc"])
        assert row["parameters"][name] == {key: value for key, value in best.items() if key != "auroc"}
    assert card.results(SUITE)["mine"]["n_in"] == 54
    assert "chosen on the validation set and 6 images of the data, which are not scored: " in " ".join(card.notes())
    inside = evaluate(net, SUITE, data, ood_val_dir=tmp_path / "sets" / "held", **options)  # one of the sets
    assert "held" not in inside.results(SUITE)
    plain = evaluate(net, SUITE, data, **options)
    assert plain.results(SUITE)["data"]["parameters"]["knn"] == {"k": 50}
    assert plain.results(SUITE)["mine"]["n_in"] == 60
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"`ood_val_dir` .* has no images: give a folder of images, or one of OpenOOD's"
    ):
        evaluate(net, SUITE, data, ood_val_dir=tmp_path / "empty", **options)


def test_the_papers_sets_are_measured_beside_the_others(arrays, tmp_path):
    data, _, net = arrays
    write_small(tmp_path / "mine", n=2)
    write_small(tmp_path / "LSUN_resize", n=3)
    write_small(tmp_path / "isun", n=4)
    card = evaluate(net, "ood-features,ood-scores", data, ood_dir=tmp_path, ood_scores="energy")
    rows = card.results(SUITE)
    assert {name: row["n"] for name, row in rows.items()} == {
        "data": 60,
        "mine": 2,
        "lsun_resize": 3,
        "isun": 4,
        "gaussian": 60,
        "uniform": 60,
    }
    for name in ("mine", "lsun_resize", "gaussian"):
        found = {key: rows[name]["scores"]["energy"][key] for key in ("auroc", "aupr_in", "fpr95")}
        other = card.results("ood-scores")[name]["scores"]["energy"]
        assert found == pytest.approx({key: other[key] for key in found})


def test_an_interrupted_evaluation_continues(arrays, tmp_path, monkeypatch):
    data, fit, net = arrays
    write_small(tmp_path / "sets" / "mine")
    options = {"fit_data": fit, "ood_dir": tmp_path / "sets"}
    whole = evaluate(net, SUITE, data, **options)
    honest, calls = ood_features._figures, []

    def killed(*a, **k):
        calls.append(a)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return honest(*a, **k)

    monkeypatch.setattr(ood_features, "_figures", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(net, SUITE, data, out=tmp_path / "out", **options)
    stored = json.loads((tmp_path / "out" / "scorecard.json").read_text())["suites"][SUITE]["results"]
    assert list(stored) == ["data", "mine"]
    monkeypatch.setattr(ood_features, "_figures", honest)
    card = evaluate(net, SUITE, data, out=tmp_path / "out", **options)

    def scores(card):
        return {name: row.get("scores") for name, row in card.results(SUITE).items()}

    assert scores(card) == scores(whole)


def test_scores_that_are_nan_are_left_out_and_counted(arrays, tmp_path):
    data, _, net = arrays

    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            logits = self.net(x)
            return torch.where(torch.arange(len(x))[:, None] < 2, torch.nan, logits)

    write_small(tmp_path / "mine")
    card = evaluate(Broken(), SUITE, data, ood_dir=tmp_path, ood_scores="energy", batch_size=60)
    row = card.results(SUITE)["mine"]
    assert (row["nonfinite"], row["scores"]["energy"]["left_out"], row["scores"]["energy"]["left_out_in"]) == (2, 2, 2)
    assert any(
        "images whose score is NaN are left out; the most in any set: energy 2." in note for note in card.notes()
    )


def test_shards_give_the_same_scores(net4, tmp_path):
    root = write_tiny_imagenet(tmp_path / "folders", train=6, side=80)
    write(tmp_path / "sets" / "mine")
    found = []
    for where in (root, tmp_path / "shards"):
        if where != root:
            for split in ("train", "val"):
                write_shards(open_dataset("folder", split, root), where, split=split)
        val, train = (open_dataset("folder", split, where) for split in ("val", "train"))
        card = evaluate(net4, SUITE, val, fit_data=train, fit_images=20, size=64, ood_dir=tmp_path / "sets")
        found.append(card.results(SUITE)["mine"]["scores"])
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        assert found[0][name]["auroc"] == pytest.approx(found[1][name]["auroc"], abs=1e-9), name


RANKS = """
import sys
import torch; torch.set_num_threads(1)
from fastreg.evaluation import evaluate
from tests.fastreg.evaluation.tiny_classifier import tiny_images, tiny_net
card = evaluate(tiny_net(), "ood-features", tiny_images(41, size=32), fit_data=tiny_images(90, size=32, seed=7),
    ood_dir=sys.argv[1], ood_val_dir=sys.argv[2], batch_size=16, device="cpu", out=sys.argv[3])
"""


@pytest.mark.slow
def test_two_ranks_give_the_scores_of_one(tmp_path):
    write_small(tmp_path / "sets" / "mine", n=3)  # fewer images than two batches: one rank has none
    write_small(tmp_path / "held", n=3, seed=1)
    (tmp_path / "run.py").write_text(RANKS)
    found = []
    for ranks in (1, 2):
        words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
        folders = [tmp_path / "sets", tmp_path / "held", tmp_path / str(ranks)]
        call = [sys.executable, *words, str(tmp_path / "run.py"), *map(str, folders)]
        subprocess.run(call, check=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)})
        results = json.loads((tmp_path / str(ranks) / "scorecard.json").read_text())["suites"][SUITE]["results"]
        found.append({name: row["scores"] for name, row in results.items() if "scores" in row})
    assert found[0].keys() == found[1].keys()
    for name, scores in found[0].items():
        for score, figures in scores.items():
            for key in ("auroc", "aupr_in", "fpr95"):
                assert math.isclose(figures[key], found[1][name][score][key], abs_tol=1e-6), (name, score, key)


def own_net(num_classes):
    return tiny_net(num_classes)


def test_the_command_finds_the_training_split(imagenet, tmp_path):
    write_small(tmp_path / "sets" / "mine", n=2)
    own = f"{__name__}:own_net"
    options = {"model": own, "size": 64, "ood_dir": tmp_path / "sets", "ood_scores": "knn,energy", "fit_images": 32}
    found = []
    for name, where in (("imagenet", {"data_dir": imagenet.root}), (f"folder:{imagenet.root}", {})):
        card, _ = run(None, SUITE, data=name, out=tmp_path / name[:6], device="cpu", **where, **options)
        fit = card.suite_settings(SUITE)["fit"]
        assert (fit["images"], fit["of"], fit["per_class"]) == (32, 64, [8, 8])
        found.append(card.results(SUITE)["mine"]["scores"]["knn"]["auroc"])
    assert found[0] == found[1]
    assert (tmp_path / "imagen" / "scorecard.json").is_file()
