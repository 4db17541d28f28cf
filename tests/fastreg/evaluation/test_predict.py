"""``predict`` and ``fastreg predict``: classes and probabilities of a plain forward pass, for every kind of file."""

import csv
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg import files, runs
from fastreg.cli import main
from fastreg.errors import InputError
from fastreg.evaluation.predict import predict
from fastreg.models import create_model
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, tiny_images

NAMES = ["n01440764", "n01443537", "cup", "moon", "pen", "road"]  # two of ImageNet's


def save_run(folder, dataset="imagenet", eval_size=48, model="cifarnet", **settings):
    torch.manual_seed(0)
    net = create_model(model, len(NAMES))
    config = {"dataset": dataset, "data_dir": ".", "model": model, "model_args": {}, "stem": "imagenet"}
    config |= {"num_classes": len(NAMES), "classes": NAMES, "eval_size": eval_size, "mean": MEAN, "std": STD}
    config |= settings
    files.write_json(folder / "config.json", config)
    runs.save_checkpoint(folder / "best.pt", {"config": config, "model": net.state_dict()})
    return net.eval()


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mine"
    return folder, save_run(folder)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    images, _ = tiny_images(3, size=72)
    for name, image in zip(("b.png", "inner/a.jpg", "c.bmp"), images):
        Image.fromarray(image.numpy()).save(folder / name)
    return folder


def wanted(net, path, size=48, resize=55, interpolation=Image.Resampling.BILINEAR):
    """Probabilities by Pillow's resize and crop, and PyTorch."""
    image = Image.open(path).convert("RGB")
    image = image.resize((resize, resize), interpolation)
    low = round((resize - size) / 2)
    pixels = np.asarray(image.crop((low, low, low + size, low + size)), np.float32) / 255
    x = torch.from_numpy((pixels - np.float32(MEAN)) / np.float32(STD)).permute(2, 0, 1)[None]
    with torch.no_grad():
        return net(x).softmax(1)[0]


def test_images_are_prepared_as_in_the_runs_validation(tmp_path, photos):
    model = save_run(tmp_path / "run", crop_pct=0.8, interpolation="bicubic")
    (found,) = predict(tmp_path / "run", [photos / "b.png"], device="cpu")
    p = wanted(model, photos / "b.png", resize=60, interpolation=Image.Resampling.BICUBIC)
    other = wanted(model, photos / "b.png")
    assert max(found.probabilities) == pytest.approx(float(p.max()), abs=1e-5)
    assert abs(float(p.max() - other.max())) > 1e-4


def test_classes_and_probabilities_are_those_of_a_plain_forward_pass(net, photos):
    folder, model = net
    found = list(predict(folder, [photos / "c.bmp", photos], batch_size=3, device="cpu"))
    assert [one.image.name for one in found] == ["c.bmp", "b.png", "c.bmp", "a.jpg"]
    for one in found:
        p, k = wanted(model, one.image).topk(5)
        assert one.outputs == tuple(k.tolist())
        assert one.probabilities == pytest.approx(p.tolist(), abs=1e-5)
    names = {0: "tench (n01440764)", 1: "goldfish (n01443537)", **dict(enumerate(NAMES[2:], 2))}
    assert found[0].classes == tuple(names[k] for k in found[0].outputs)


def test_cifar_runs_take_images_of_their_size_as_they_are(tmp_path):
    net = save_run(tmp_path / "run", dataset="cifar10", eval_size=32)
    images, _ = tiny_images(1, size=32)
    Image.fromarray(images[0].numpy()).save(tmp_path / "x.png")
    (found,) = predict(tmp_path / "run", [tmp_path / "x.png"], device="cpu")
    assert found.probabilities == pytest.approx(
        wanted(net, tmp_path / "x.png", 32, 32).topk(5).values.tolist(), abs=1e-5
    )


def test_gray_deep_and_transparent_images_are_read_as_the_pipelines_read_them(net, tmp_path):
    gray = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(gray).convert("RGBA").save(tmp_path / "alpha.png")
    found = {one.image.stem: one for one in predict(net[0], [tmp_path], device="cpu")}
    assert found["gray"].probabilities == found["deep"].probabilities == found["alpha"].probabilities


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ["nothing.png"]}, "no image at nothing.png"),
        ({"images": ["."]}, r"the folder \. holds no images"),
        ({"images": []}, "no image was named"),
        ({"topk": 0}, "`topk` is 0"),
        ({"interpolation": "cubic"}, "unknown `interpolation` 'cubic'"),
        ({"crop_pct": 2.0}, "`crop_pct` is 2"),
        ({"size": 0}, "`size` is 0"),
    ],
)
def test_wrong_values_are_refused_before_any_work(net, photos, tmp_path, monkeypatch, change, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match=message):
        predict(net[0], **{"images": [photos], **change})


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["fastreg", "predict", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            main()
        text = capsys.readouterr()
        return int(left.value.code or 0), text.out, text.err

    return run


def test_a_damaged_image_is_named_and_the_others_continue(net, photos, call):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 no")
    code, out, err = call(net[0], photos, "--topk", 2, "--device", "cpu")
    assert code == 1
    assert "broken.jpg: it is not an image" in err
    assert [line.partition(":")[0].rpartition("/")[2] for line in out.splitlines()] == ["b.png", "c.bmp", "a.jpg"]
    assert all(line.count(" %") == 2 for line in out.splitlines())


def test_csv_has_a_row_per_image_and_rank(net, photos, call, tmp_path):
    code, out, _ = call(net[0], photos, "--csv", tmp_path / "p.csv", "--device", "cpu")
    assert (code, "3 images" in out) == (0, True)
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert len(rows) == 15
    assert [row["rank"] for row in rows[:5]] == list("12345")
    assert float(rows[0]["probability"]) == pytest.approx(float(wanted(net[1], rows[0]["image"]).max()), abs=1e-5)
    code, out, _ = call(net[0], photos / "b.png", "--csv")
    assert out.splitlines()[0] == "image,rank,output,class,probability"
    code, _, err = call(net[0], photos / "b.png", "--csv", photos / "c.bmp")
    assert (code, "--csv is" in err) == (2, True)
    assert Image.open(photos / "c.bmp").size == (72, 72)
