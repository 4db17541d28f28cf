"""The suites imagenet-p and cifar-p: figures by hand, files, sizes, resume, ranks and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fastreg import metrics
from fastreg.errors import InputError, RunError
from fastreg.evaluation import evaluate
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.perturbation_suite import CIFAR
from fastreg.evaluation.perturbed_files import read_video
from fastreg.evaluation.suites import ROWS
from fastreg.kernels import PERTURBATIONS, perturb, perturbation_frames
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD
from fastreg.metrics.stability import ALEXNET_FLIPS
from tests.fastreg.evaluation.tiny_classifier import CLASSES, tiny_images, tiny_net, to_pixels

NOISE = ("gaussian_noise", "shot_noise")


def expected_row(net, frames, labels, name):
    """Figures of uint8 [V, F, S, S, 3] by a plain pass and the metrics."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        logits = net((to_pixels(frames.flatten(0, 1)) - mean) / std).view(*frames.shape[:2], -1)
    reference = "first" if name in NOISE else "previous"
    top = logits.sort(dim=-1, descending=True, stable=True).indices
    return {
        "n": len(frames),
        "frames": frames.shape[1],
        "flip_probability": pytest.approx(metrics.flip_probability(top[..., 0], reference), abs=1e-9),
        "top5_distance": pytest.approx(metrics.top5_distance(top[..., :5], reference), abs=1e-9),
        "error": pytest.approx(100 * float((top[..., 0] != labels[:, None]).double().mean()), abs=1e-9),
    }


def figures(row):
    return {key: row[key] for key in ("n", "frames", "flip_probability", "top5_distance", "error")}


def test_figures_are_those_of_the_sequences(net):
    """For every batch size: one that holds a sequence, some, or less than one."""
    images, labels = tiny_images(5, 32)
    cards = [evaluate(net, "cifar-p", (images, labels), batch_size=size, seed=7) for size in (128, 40, 7)]
    for name in CIFAR:
        frames = perturb(images, name, seed=7, indices=torch.arange(5))
        for card in cards:
            assert figures(card.results("cifar-p")[name]) == expected_row(net, frames, labels, name)
    rows, summary = cards[0].results("cifar-p"), cards[0].summary()
    for part in ("flip_probability", "top5_distance"):
        assert summary[f"cifar_p_{part}"] == pytest.approx(sum(row[part] for row in rows.values()) / 10)
    assert summary["cifar_p_flip_probability"] > 0
    assert "mfr" not in summary
    assert cards[0].suite_settings("cifar-p")["fidelity"] == "uncompressed"


def test_whole_images_surround_the_frames(imagenet):
    """Class folders of images of several sizes, against Pillow's resize of every whole image."""
    net, name = tiny_net(4), "scale"
    card = evaluate(net, "imagenet-p", imagenet, size=64, perturbations=name, seed=1, batch_size=33)
    rows = []
    for index in range(len(imagenet)):
        image = Image.open(imagenet.describe(index)).convert("RGB")
        short = min(image.size)
        width, height = (int(73 * side / short) if side != short else 73 for side in image.size)
        whole = torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BILINEAR)))[None]
        rows.append(perturb(whole, name, constants="tiny64", size=64))
    frames, labels = torch.cat(rows), torch.from_numpy(np.asarray(imagenet.labels))
    assert len({image.shape for image in rows}) == 1
    assert figures(card.results("imagenet-p")[name]) == expected_row(net, frames, labels, name)
    assert "imagenet_p_flip_probability" not in card.summary()
    notes = " ".join(card.notes())
    assert "imagenet-p is partial" in notes
    assert "generated, uncompressed" in notes
    assert "without surroundings" not in notes
    arrays = evaluate(tiny_net(), "imagenet-p", tiny_images(2), perturbations="rotate")
    assert "without surroundings" in arrays.altered("imagenet-p")


def test_arrays_of_the_published_layout(net, tmp_path):
    images, labels = tiny_images(4, 32)
    for name in CIFAR:
        frames = perturb(images, name, seed=2, indices=torch.arange(4))
        np.save(tmp_path / f"{name}.npy", frames.numpy())
    stored = evaluate(net, "cifar-p", (images, labels), cifar_p_dir=tmp_path)
    made = evaluate(net, "cifar-p", (images, labels), seed=2)
    for name in CIFAR:
        assert figures(stored.results("cifar-p")[name]) == figures(made.results("cifar-p")[name])
    assert stored.suite_settings("cifar-p")["from"] == "official files"
    np.save(tmp_path / "tilt.npy", np.zeros((4, 5, 32, 32, 3), np.uint8))
    changed = evaluate(net, "cifar-p", (images, labels), cifar_p_dir=tmp_path)
    assert "cifar_p_flip_probability" not in changed.summary()
    assert any("5 frames per sequence instead of 31" in note for note in changed.notes())
    (tmp_path / "snow.npy").write_bytes((tmp_path / "tilt.npy").read_bytes()[:-7])
    for wrong, name, words in (
        (np.zeros((3, 31, 32, 32, 3), np.uint8), "rotate", r"rotate.npy is uint8 \[3, 31"),
        (None, "snow", "cannot be read as an array"),
    ):
        if wrong is not None:
            np.save(tmp_path / f"{name}.npy", wrong)
        with pytest.raises(InputError, match=words):
            evaluate(net, "cifar-p", (images, labels), cifar_p_dir=tmp_path, perturbations=name)
    with pytest.raises(InputError, match="holds none of the perturbations asked for"):
        evaluate(net, "cifar-p", (images, labels), cifar_p_dir=tmp_path, perturbations="shear")
    with pytest.raises(InputError, match=r"no folder at .*drive\.google\.com.* has them"):
        evaluate(net, "cifar-p", (images, labels), cifar_p_dir=tmp_path / "none")


def write_video(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 1, frames.shape[1:3])
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


@pytest.fixture(scope="module")
def videos(imagenet, tmp_path_factory):
    """Two perturbations of ``imagenet`` in ImageNet-P's layout, at 64 px."""
    root = tmp_path_factory.mktemp("p")
    rng = np.random.default_rng(0)
    for name in ("rotate", "gaussian_noise"):
        for index in range(len(imagenet)):
            file = Path(imagenet.describe(index))
            coarse = rng.integers(0, 256, (31, 4, 4, 3), dtype=np.uint8)
            frames = np.stack([cv2.resize(frame, (64, 64)) for frame in coarse])
            write_video(root / name / file.parent.name / f"{file.stem}.mp4", frames)
    return root


def test_videos_of_the_published_layout(imagenet, videos, tmp_path):
    net, labels = tiny_net(4), torch.from_numpy(np.asarray(imagenet.labels))
    card = evaluate(net, "imagenet-p", imagenet, size=64, imagenet_p_dir=videos, workers=1)
    assert list(card.results("imagenet-p")) == ["gaussian_noise", "rotate"]  # the suite's order
    for name, row in card.results("imagenet-p").items():
        files = [Path(imagenet.describe(i)) for i in range(len(imagenet))]
        frames = np.stack([read_video(videos / name / f.parent.name / f"{f.stem}.mp4") for f in files])
        assert figures(row) == expected_row(net, torch.from_numpy(frames), labels, name)
    assert card.suite_settings("imagenet-p")["fidelity"] == "H.264 videos"
    assert any("missing: shot_noise" in note for note in card.notes())


def test_missing_and_broken_videos_are_named(imagenet, videos, tmp_path):
    net, root = tiny_net(4), tmp_path / "p"
    given = {"size": 64, "imagenet_p_dir": root}
    for index in range(len(imagenet)):
        file = Path(imagenet.describe(index))
        target = root / "group" / "rotate" / file.parent.name / f"{file.stem}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        if index:
            target.write_bytes((videos / "rotate" / file.parent.name / target.name).read_bytes())
    card = evaluate(net, "imagenet-p", imagenet, **given)
    assert "1 sequence lost" in card.results("imagenet-p")["rotate"]["differs"]
    write_video(target, np.zeros((7, 64, 64, 3), np.uint8))
    with pytest.raises(RunError, match=r"has 7 frames of 64 x 64 px, not 31"):
        evaluate(net, "imagenet-p", imagenet, **given)
    target.write_bytes(b"no video")
    with pytest.raises(RunError, match=r"cannot be read as a video \(0 frames\).*OpenCV with FFmpeg"):
        evaluate(net, "imagenet-p", imagenet, **given)
    with pytest.raises(InputError, match=r"frames of 64 x 64 px and the data has 48 px"):
        evaluate(net, "imagenet-p", imagenet, **{**given, "size": 48})
    with pytest.raises(InputError, match="holds none of the perturbations"):
        evaluate(net, "imagenet-p", imagenet, perturbations="snow", **given)


def test_mfr_is_of_the_published_files_of_imagenet(net):
    """AlexNet's own flips give 100; generated frames, other data and sample data give no rate."""
    card = evaluate(net, "imagenet-p", tiny_images(2), perturbations="brightness")
    row = card.results("imagenet-p")["brightness"]
    card.suites["imagenet-p"]["results"] = {
        name: {**row, "flip_probability": 50 * ALEXNET_FLIPS[name]} for name in PERTURBATIONS
    }
    assert "mfr" not in card.summary()
    card.suites["imagenet-p"]["settings"] = {"from": "official files"}
    assert "mfr" not in card.summary()
    card.data |= {"name": "imagenet", "classes": 1000, "size": 224}
    assert card.summary()["mfr"] == pytest.approx(50)
    table = ROWS["imagenet-p"].tables(card, "imagenet-p")[0]
    assert table.headings[3] == "FR, %"
    assert [line[3] for line in table.rows] == [pytest.approx(50)] * 10
    card.data["sample"] = True
    assert "mfr" not in card.summary()


class Broken(nn.Module):
    """NaN logits for images whose first pixel is dark."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return torch.where(x[:, :1, 0, 0] < 0, torch.nan, self.net(x))


def test_frames_with_nan_logits_are_counted(net):
    images, labels = tiny_images(6, 32)
    images[:3, 0, 0], images[3:, 0, 0] = 0, 255
    card = evaluate(Broken(net), "cifar-p", (images, labels), perturbations="brightness")
    row = card.results("cifar-p")["brightness"]
    assert (row["nonfinite"], row["nonfinite_frames"]) == (3, 93)
    assert row["flip_probability"] >= 50
    notes = " ".join(card.notes())
    assert "93 frames gave NaN logits" in notes
    assert "3 of 6 images gave NaN logits" in notes


def test_one_class_and_constant_logits():
    images, labels = tiny_images(3, 32)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, CLASSES))
    nn.init.zeros_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    row = evaluate(net, "cifar-p", (images, labels), perturbations="spatter").results("cifar-p")["spatter"]
    assert (row["flip_probability"], row["top5_distance"]) == (0, 0)
    one = nn.Sequential(nn.Flatten(), nn.Linear(3072, 1))
    row = evaluate(one, "cifar-p", (images, torch.zeros(3, dtype=torch.int64)), perturbations="tilt")
    assert row.results("cifar-p")["tilt"]["flip_probability"] == 0


def test_a_stopped_evaluation_continues(net, tmp_path, monkeypatch):
    data, given = tiny_images(3, 32), {"perturbations": "rotate,tilt", "out": tmp_path}
    evaluate(net, "cifar-p", data, perturbations="rotate", out=tmp_path)
    written = json.loads((tmp_path / "scorecard.json").read_text())["suites"]["cifar-p"]["results"]["rotate"]
    card = evaluate(net, "cifar-p", data, **given)
    assert card.results("cifar-p")["rotate"] == written  # its seconds, too: it was not measured again
    assert list(card.results("cifar-p")) == ["rotate", "tilt"]
    assert card.results("cifar-p")["tilt"]["flip_probability"] == pytest.approx(
        evaluate(net, "cifar-p", data, perturbations="tilt").results("cifar-p")["tilt"]["flip_probability"]
    )


@pytest.mark.parametrize("suite", ["imagenet-p", "cifar-p"])
def test_ranks_share_the_images(suite, imagenet, videos):
    """The batches of two ranks together are those of one."""
    from fastreg.distributed import World

    eval_data = EvalData(imagenet, 64) if suite == "imagenet-p" else EvalData(tiny_images(20, 32))
    options = {"perturbations": "rotate", "batch_size": 4}
    plans = [ROWS[suite].build(eval_data, EvalConfig(**options))]
    if suite == "imagenet-p":
        plans.append(ROWS[suite].build(eval_data, EvalConfig(**options, imagenet_p_dir=videos)))
    for plan in plans:
        batches = plan.conditions["rotate"].batches
        if batches is None:
            continue  # the pixel cache shares them
        config = EvalConfig(**options)
        seen = [
            index
            for rank in range(2)
            for batch in batches(World(rank, 2, torch.device("cpu")), config)
            for index in batch.indices.tolist()
        ]
        assert sorted(seen) == list(range(len(eval_data)))


def test_other_sizes_get_the_nearest_constants(net):
    for size, options, constants, side in ((96, {}, "tiny64", 64), (64, {"constants": "cifar32"}, "cifar32", 32)):
        card = evaluate(net, "imagenet-p", tiny_images(2, size), perturbations="translate", **options)
        assert card.suite_settings("imagenet-p")["constants"] == constants
        assert f"constants {constants}, made for {side} px" in card.altered("imagenet-p")
    given = {"perturbations": "translate", "constants": "imagenet299"}
    card = evaluate(net, "imagenet-p", tiny_images(2), **given)
    assert card.suite_settings("imagenet-p")["constants"] == "tiny64"


def test_data_info_describes_the_files(monkeypatch, capsys):
    from fastreg.cli import main
    from fastreg.cli.eval_options import FLAGS

    gigabytes = sum(10_000 * perturbation_frames(name, "cifar32") * 32 * 32 * 3 for name in CIFAR) / 1e9
    for suite, words in (("imagenet-p", "zenodo.org/record/3565846"), ("cifar-p", f"{gigabytes:.1f} GB for the ten")):
        monkeypatch.setattr("sys.argv", ["fastreg", "data", "info", suite])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code in (0, None)
        printed = capsys.readouterr().out
        assert words in printed
        option = printed.split("option: ")[1].strip()
        assert option in {row[1] for row in FLAGS["Suites"].values()}


@pytest.mark.parametrize(
    ("suite", "size", "options", "words"),
    [
        ("imagenet-p", 32, {}, "imagenet-p does not fit 32 px images: use the suite cifar-p"),
        ("cifar-p", 64, {}, "cifar-p does not fit 64 px images: use the suite imagenet-p"),
        ("imagenet-p", 64, {"perturbations": "rotat"}, "rotat"),
        ("imagenet-p", 64, {"constants": "tiny32"}, "tiny32, which imagenet-p does not have"),
    ],
)
def test_refusals(net, suite, size, options, words):
    with pytest.raises(InputError, match=words):
        evaluate(net, suite, tiny_images(2, size), **options)
