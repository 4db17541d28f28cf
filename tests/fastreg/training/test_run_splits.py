"""The splits of a run in what follows it: evaluation, report, and corrupted copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastreg.errors import InputError
from fastreg.evaluation.corrupt_dataset import corrupt_dataset
from fastreg.evaluation.from_checkpoint import run as evaluate_run
from fastreg.pipelines import open_dataset
from fastreg.report import write_report
from fastreg.training import Config, train
from tests.fastreg.training import tiny_runs as tiny

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Two classes of 24 images, without a validation split."""
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(24):
            pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    return tmp_path / "photos"


def settings(root: Path, data_dir: Path, **more) -> Config:
    chosen = {**tiny.settings("none", root / "runs", root).__dict__, "color_jitter": 0.0, "lighting": 0.0}
    return Config(**{**chosen, "dataset": "folder", "data_dir": str(data_dir), **more})


def evaluated(root: Path, out: str, **more):
    """(images, fingerprint) of an evaluation of the run."""
    card, _ = evaluate_run(root / "runs" / "run", device="cpu", loader="folder", out=root / out, **more)
    return card.data["n"], card.data["fingerprint"]


def test_a_run_is_evaluated_and_reported_on_its_own_share(photos, tmp_path):
    def held(share: float):
        source = open_dataset("folder", "val", photos, val_share=share)
        return len(source), source.fingerprint

    folder = train(settings(tmp_path, photos, val_share=0.25))
    assert evaluated(tmp_path, "own") == held(0.25)
    assert evaluated(tmp_path, "other", val_share=0.5) == held(0.5)
    assert evaluated(tmp_path, "elsewhere", data_dir=shutil.copytree(photos, tmp_path / "copy"))[0] == held(0.25)[0]

    evaluate_run(folder, "imagenet-c", device="cpu", loader="folder", corruptions="contrast", severities="1")
    text = write_report([folder], tmp_path / "report.html").read_text()
    assert "No contact sheet" not in text
    assert "A validation image of folder val under every corruption" in text


def test_a_named_split_replaces_the_share_and_a_share_may_be_of_a_named_split(photos, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(photos, root / "part1")
    shutil.copytree(photos / "ant", root / "part2" / "ant")
    train(settings(tmp_path, root, train_split="part1", val_split="part2"))
    assert evaluated(tmp_path, "own")[0] == 24
    assert evaluated(tmp_path, "whole", val_split="part1")[0] == 48
    shutil.rmtree(root / "part2")
    share = len(open_dataset("folder", "val", root, split_name="part1", val_share=0.5))
    assert 0 < share < 48
    assert evaluated(tmp_path, "share", val_share=0.5)[0] == share  # of the run's own training split
    assert evaluated(tmp_path, "named", val_share=0.5, train_split="part1")[0] == share


def test_options_that_exclude_each_other_are_refused(photos, tmp_path):
    for more, message in (
        ({"val_split": "a", "val_share": 0.5}, "`val_split` is a: give one"),
        ({"val_split": "a", "train_split": "b"}, "`val_split` is a: give one"),
        ({"data": f"folder:{photos}", "val_share": 0.5}, "`val_share` 0.5 does not fit `data` folder:"),
    ):
        train(settings(tmp_path, photos, val_share=0.25), resume="auto")
        with pytest.raises(InputError, match=message):
            evaluated(tmp_path, "none", **more)
    with pytest.raises(InputError, match="`train_split` b is the split that `val_share` divides"):
        corrupt_dataset("folder", tmp_path / "c", data_dir=photos, train_split="b")


def test_a_corrupted_copy_of_a_share_has_its_images(photos, tmp_path):
    given = {"corruptions": "contrast", "severities": "1", "size": 16, "device": "cpu", "val_share": 0.25}
    corrupt_dataset(photos, tmp_path / "held", **given)
    corrupt_dataset("folder", tmp_path / "kept", data_dir=photos, split="train", **given)
    copied = [{path.stem for path in (tmp_path / name).rglob("ant/*.JPEG")} for name in ("held", "kept")]
    source = open_dataset("folder", "val", photos, val_share=0.25)
    held = {Path(source.describe(k)).stem for k in range(len(source)) if source.labels[k] == 0}
    assert copied == [held, {str(k) for k in range(24)} - held]
