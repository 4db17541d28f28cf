"""per_class.csv and confusion.csv, against predictions computed by hand."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.evaluation import engine, evaluate
from fastreg.evaluation.class_counts import label_and_class
from tests.fastreg.evaluation.tiny_classifier import CLASSES, MEAN, STD, tiny_images, tiny_net, to_pixels


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def hand(net, data):
    images, labels = data
    pixels = (to_pixels(images) - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        return labels.numpy(), net(pixels).argmax(1).numpy()


SUITES = "clean,fgsm,occlusion,imagenet-c"
OWN = {"corruptions": "fog,pixelate", "severities": "2,4", "batch_size": 7}


def test_the_tables_are_those_of_the_predictions(net, data, tmp_path):
    card = evaluate(net, SUITES, data, out=tmp_path, **OWN)
    labels, classes = hand(net, data)
    rows = table(tmp_path / "per_class.csv")
    headings = ["class", "images", "clean", "fgsm", "occlusion"]
    assert list(rows[0]) == [*headings, *(f"imagenet-c {name}/{s}" for name in ("fog", "pixelate") for s in (2, 4))]
    for k, row in enumerate(rows):
        assert row["class"] == str(k)
        assert int(row["images"]) == (labels == k).sum()
        assert int(row["clean"]) == ((labels == k) & (classes != k)).sum()
    for suite in card.suites:
        for key, result in card.results(suite).items():
            wrong = sum(int(row[suite if key == suite else f"{suite} {key}"]) for row in rows)
            assert wrong == round(result["error"] * result["n"] / 100)
    confusion = {(row["true"], row["predicted"]): int(row["images"]) for row in table(tmp_path / "confusion.csv")}
    expected = np.zeros((CLASSES, CLASSES), int)
    np.add.at(expected, (labels, classes), 1)
    assert confusion == {(str(a), str(b)): n for (a, b), n in np.ndenumerate(expected) if n}


def test_an_interrupted_evaluation_continues_the_tables(net, data, tmp_path, monkeypatch):
    evaluate(net, SUITES, data, out=tmp_path / "whole", **OWN)
    original, calls = engine._pass, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(engine, "_pass", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(net, SUITES, data, out=tmp_path / "cut", **OWN)
    monkeypatch.setattr(engine, "_pass", original)
    evaluate(net, SUITES, data, out=tmp_path / "cut", **OWN)
    for name in ("per_class.csv", "confusion.csv"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_another_model_begins_new_tables(net, data, tmp_path):
    evaluate(net, "clean,fgsm", data, out=tmp_path)
    other = torch.nn.Sequential(net, torch.nn.Identity()).eval()
    other[0][-1].weight.data.neg_()
    evaluate(other, "clean", data, out=tmp_path)
    other[0][-1].weight.data.neg_()
    assert list(table(tmp_path / "per_class.csv")[0]) == ["class", "images", "clean"]


def test_images_without_a_softmax_and_ties():
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, torch.nan, 1.0], [0.0, 1.0, 2.0]])
    pairs = label_and_class(torch.tensor([1, 2, 2]), logits, logits.softmax(1).amax(1))
    assert pairs.tolist() == [[1, 0], [2, -1], [2, 2]]


def test_the_calibration_error_under_corruption_is_the_mean_of_the_conditions():
    images, labels = tiny_images(size=32)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, CLASSES)).eval()
    card = evaluate(net, "cifar-c", (images, labels), seed=1)
    rows = card.results("cifar-c")
    assert card.summary()["cifar_c_ece"] == pytest.approx(np.mean([row["ece"] for row in rows.values()]))
    by_severity = card.severity_ece("cifar-c")
    assert by_severity[3] == pytest.approx(np.mean([row["ece"] for key, row in rows.items() if key.endswith("/3")]))
    assert list(by_severity) == [1, 2, 3, 4, 5]
    del rows["fog/3"]["ece"]  # as in cards without it
    assert list(card.severity_ece("cifar-c")) == [1, 2, 4, 5]
    assert "cifar_c_ece" not in card.summary()


@pytest.mark.parametrize("numbered", [False, True])
def test_a_confusion_with_all_outputs_names_those_of_the_model(tmp_path, numbered):
    """Classes of outputs 1 and 4, among six that compete: predictions are named by their own output."""
    images, _ = tiny_images(24)
    names = [str(k) if numbered else f"c{k}" for k in range(6)]
    for i, image in enumerate(images):
        (tmp_path / "data" / names[1 + 3 * (i % 2)]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(tmp_path / "data" / names[1 + 3 * (i % 2)] / f"{i:02}.png")
    given = {"classes": None if numbered else names, "size": 64, "crop_pct": 1.0, "scored_classes": "all"}
    evaluate(tiny_net(), "clean", tmp_path / "data", out=tmp_path / "out", **given)
    _, found = hand(tiny_net(), (images, torch.zeros(24, dtype=torch.int64)))
    named = {k: f"output {k}" if numbered and k not in (1, 4) else names[k] for k in range(6)}
    expected = {}
    for i, output in enumerate(found.tolist()):
        pair = (names[1 + 3 * (i % 2)], named[output])
        expected[pair] = expected.get(pair, 0) + 1
    assert any(predicted not in (names[1], names[4]) for _, predicted in expected)
    rows = table(tmp_path / "out" / "confusion.csv")
    assert {(row["true"], row["predicted"]): int(row["images"]) for row in rows} == expected


def test_a_damaged_cell_begins_the_tables_anew(net, data, tmp_path):
    evaluate(net, "clean", data, out=tmp_path)
    whole = (tmp_path / "per_class.csv").read_text()
    lines = whole.splitlines()
    lines[1] = lines[1].rpartition(",")[0] + ",x"
    (tmp_path / "per_class.csv").write_text("\n".join(lines) + "\n")
    evaluate(net, "clean,occlusion", data, out=tmp_path)
    assert list(table(tmp_path / "per_class.csv")[0]) == ["class", "images", "occlusion"]
