"""The natural sets: each against plain Pillow and the authors' scoring, from folders as their archives unpack."""

import csv
import importlib.resources
import json
import math
import tarfile
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from fastreg.evaluation.imagenet_classes import imagenet_classes
from fastreg.evaluation.natural_suite import set_classes, stand_in
from fastreg.pipelines.natural_sets import NATURAL_SETS, natural_info
from fastreg.pipelines.verify_data import info
from fastreg.report.run_folder import Run
from fastreg.report.spread import intervals
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, tiny_images, tiny_net
from tests.support import ROOT, fastreg, peer

SIZE = 32
IDS = list(imagenet_classes())
# set -> its folder, and some of its class folders
FOLDERS = {
    "imagenet-a": ("imagenet-a", ["n01498041", "n12267677", "n07734744"]),
    "imagenet-r": ("imagenet-r", ["n01443537", "n12267677"]),
    "imagenet-sketch": ("sketch", [IDS[0], IDS[999]]),
    "imagenetv2-matched-frequency": ("imagenetv2-matched-frequency-format-val", ["0", "10", "2", "999"]),
    "objectnet": ("objectnet-1.0/images", ["alarm_clock", "chair", "air_freshener", "tv"]),
}


@pytest.fixture(scope="module")
def net():
    return tiny_net(classes=1000)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The sets with images of several sizes; air_freshener is not one of ObjectNet's 113 classes."""
    root, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for folder, classes in FOLDERS.values():
        for name in classes:
            (root / folder / name).mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (*rng.integers(40, 70, 2), 3), dtype=np.uint8)
                pixels[:2] = pixels[-2:] = pixels[:, :2] = pixels[:, -2:] = (255, 0, 0)
                Image.fromarray(pixels).save(root / folder / name / f"{i}.png")
    (root / "imagenet-a" / "README.txt").write_text("as in the archive")
    return root


@pytest.fixture(scope="module")
def card(net, root, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return evaluate(net, "natural", root / "imagenet-a", size=SIZE, out=out), out


def logits_of(net, path, border: int) -> torch.Tensor:
    """All 1000 logits of one file, resized and cut as torchvision's transforms do."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    image = image.crop((border, border, width - border, height - border))
    short = round(SIZE * 256 / 224)
    width, height = image.size
    scaled = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (round((side - SIZE) / 2) for side in image.size)
    image = np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        return net((((torch.from_numpy(image.copy()).permute(2, 0, 1) / 255) - mean) / std)[None])[0]


def hits(net, root, name: str) -> list[bool]:
    """Hits by the rules of the sets' own scripts."""
    folder, classes = FOLDERS[name]
    competing = sorted({IDS.index(wnid) for ids in set_classes(name).values() for wnid in ids})
    found = []
    for own in sorted(classes):
        right = [IDS.index(wnid) for wnid in set_classes(name).get(own, [])]
        for path in sorted((root / folder / own).iterdir()) if right else ():
            logits = logits_of(net, path, border=2 if name == "objectnet" else 0)
            masked = torch.full_like(logits, -math.inf)
            masked[competing] = logits[competing]
            found.append(int(masked.argmax()) in right)
    return found


@pytest.mark.parametrize("name", FOLDERS)
def test_errors_are_those_of_the_sets_own_rules(name, net, root, card):
    card, _ = card
    own = hits(net, root, name)
    row = card.results("natural")[name]
    assert row["n"] == len(own)
    assert row["error"] == pytest.approx(100 * (1 - sum(own) / len(own)))


def test_objectnets_score_is_the_largest_of_its_outputs_and_calibration_is_of_113_classes(net, root, card):
    card, _ = card
    folder, classes = FOLDERS["objectnet"]
    confidences = []
    for own in sorted(set(classes) & set(set_classes("objectnet"))):
        for path in sorted((root / folder / own).iterdir()):
            logits = logits_of(net, path, border=2)
            groups = [max(logits[IDS.index(w)] for w in ids) for ids in set_classes("objectnet").values()]
            confidences.append(torch.stack(groups).softmax(0).max().item())
    row = card.results("natural")["objectnet"]
    assert row["confidence"] == pytest.approx(100 * np.mean(confidences), rel=1e-4)
    assert row["ece"] is not None


def test_lists_are_those_of_the_authors():
    """timm's own copies; and the official table of ObjectNet has 125 outputs."""
    for name in ("imagenet-a", "imagenet-r"):
        text = (
            importlib.resources.files(peer("timm"))
            .joinpath(f"data/_info/{name.replace('-', '_')}_synsets.txt")
            .read_text()
        )
        assert list(set_classes(name)) == text.split()
    groups = set_classes("objectnet")
    every = [wnid for ids in groups.values() for wnid in ids]
    assert (len(groups), len(every), len(set(every))) == (113, 125, 125)
    assert [imagenet_classes()[w] for w in groups["chair"]] == ["barber chair", "folding chair", "rocking chair"]
    assert {name: len(set_classes(name)) for name in NATURAL_SETS} == {n: s.classes for n, s in NATURAL_SETS.items()}


def test_a_partial_suite_has_no_mean_and_says_what_is_missing(card):
    card, _ = card
    assert "natural_error" not in card.summary()
    notes = " ".join(card.notes())
    assert "natural: not found: imagenetv2-threshold0.7, imagenetv2-top-images." in notes
    assert "natural imagenet-a: 9 images, while the set has 7,500." in notes
    assert "natural is partial, so it has no mean of A, R, Sketch, V2, ObjectNet." in notes


def test_the_mean_is_that_of_five_whole_sets(card):
    card = deepcopy(card[0])
    rows = card.results("natural")
    for name, row in rows.items():
        row["n"] = NATURAL_SETS[name].images
    assert card.summary()["natural_error"] == pytest.approx(np.mean([rows[name]["error"] for name in FOLDERS]))


def test_intervals_are_of_the_sets_own_images(card):
    """Wilson's interval of 9 images, not of the 12 of the data."""
    card, _ = card
    p, n, z = card.summary()["objectnet_error"] / 100, 9, 1.959964
    low = (p + z * z / (2 * n) - z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    (found,) = intervals(Run("r", None, card, {}, []), ["objectnet_error"])
    assert found[0] == pytest.approx(100 * low, rel=1e-4)


def test_confusion_names_real_classes(net, root, card):
    out = card[1]
    classes = FOLDERS["objectnet"][1]
    with (out / "confusion-objectnet.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["true"] for row in rows} == set(classes) - {"air_freshener"}
    assert {row["predicted"] for row in rows} <= set(set_classes("objectnet"))
    with (out / "confusion-imagenetv2-matched-frequency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["true"] for row in rows} == {IDS[k] for k in (0, 2, 10, 999)}
    assert {row["predicted"] for row in rows} <= set(IDS)
    assert sum(int(row["images"]) for row in rows) == 12


def test_all_outputs_compete_on_request(net, root):
    card = evaluate(net, "natural", root / "imagenet-a", size=SIZE, scored_classes="all")
    wrong = 0
    for own in sorted(FOLDERS["imagenet-a"][1]):
        paths = sorted((root / "imagenet-a" / own).iterdir())
        wrong += sum(int(logits_of(net, path, 0).argmax()) != IDS.index(own) for path in paths)
    assert card.results("natural")["imagenet-a"]["error"] == pytest.approx(100 * wrong / 9)
    assert "all outputs compete" in card.altered("natural")


def test_outputs_in_another_order_are_found_by_their_names(net, root, card):
    order = np.random.default_rng(1).permutation(1000)
    shuffled = torch.nn.Sequential(net, Take(torch.from_numpy(order)))
    other = evaluate(shuffled, "natural", root / "imagenet-a", size=SIZE, classes=[IDS[k] for k in order])
    for name, row in card[0].results("natural").items():
        assert other.results("natural")[name]["error"] == row["error"]
        assert other.results("natural")[name]["confidence"] == pytest.approx(row["confidence"], rel=1e-5)


class Take(torch.nn.Module):
    def __init__(self, order):
        super().__init__()
        self.register_buffer("order", order)

    def forward(self, x):
        return x[:, self.order]


def test_other_models_are_refused_and_full_leaves_the_suite_out(root, messages):
    data = tiny_images(6, size=SIZE)
    with pytest.raises(InputError, match=r"1000 classes .* and this one has 2 outputs, none for n01440764"):
        evaluate(tiny_net(classes=2), "natural", root / "imagenet-r", size=SIZE)
    with pytest.raises(InputError, match=r"natural needs one of imagenet-a, imagenet-r, .*`fastreg data info natural`"):
        evaluate(tiny_net(classes=1000), "natural", data)
    card = evaluate(tiny_net(classes=6), "full", data, corruptions="brightness", severities="1")
    assert "natural" not in card.suites
    assert any(message.startswith("left out: natural needs one of") for message in messages)


def test_a_strange_class_folder_is_named(net, root, tmp_path):
    for own in ("n01498041", "n00000000"):
        (tmp_path / "imagenet-a" / own).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "imagenet-a" / own / "a.png")
    (tmp_path / "imagenet-r" / "n01443537").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "imagenet-r" / "n01443537" / "a.png")
    with pytest.raises(InputError, match="has the class folder 'n00000000', which is not of imagenet-a"):
        evaluate(net, "natural", tmp_path / "imagenet-r", size=SIZE)


def test_the_sets_alone_stand_in_for_imagenet(root, tmp_path):
    assert stand_in("natural", root).parent == root
    assert stand_in("natural,clean", root) is None
    for name in ("imagenet-r", "imagenet-sketch"):
        (tmp_path / name / "n01443537").mkdir(parents=True)
    assert stand_in("natural", tmp_path).name == "imagenet-r"
    with tarfile.open(tmp_path / "val-000000.tar", "w"):
        pass  # ImageNet's validation images are beside the sets, as shards
    assert stand_in("natural", tmp_path) is None


def test_data_info_prints_addresses(root):
    with pytest.raises(
        InputError, match=r"no imagenetv2-top-images in .*1.25 GB.* unpack it as imagenetv2-top-images-f"
    ):
        info("imagenetv2-top-images", root / "imagenet-a")
    assert info("imagenet-a", root)["splits"]
    found = {row["set"]: row["found"] for row in natural_info(root)}
    assert found["objectnet"] == root / "objectnet-1.0" / "images"
    assert found["imagenetv2-top-images"] is None


@pytest.mark.slow
def test_the_command_line_measures_the_sets_without_imagenet(root, tmp_path):
    (tmp_path / "own.py").write_text(
        "from tests.fastreg.evaluation.tiny_classifier import tiny_net\n\n\n"
        "def make():\n    return tiny_net(classes=1000)\n"
    )
    path = f"{tmp_path}:{ROOT}"
    words = ("eval", "--model", "own:make", "--suite", "natural", "--data-dir", root, "--size", SIZE, "--device", "cpu")
    done = fastreg(*words, cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("runs/**/scorecard.json")
    assert set(json.loads(file.read_text())["suites"]["natural"]["results"]) == set(FOLDERS)
    assert "natural: errors of each set in percent" in done.stdout
    done = fastreg("data", "info", "natural", "--data-dir", root, cwd=tmp_path)
    assert "https://objectnet.dev/download.html" in done.stdout
