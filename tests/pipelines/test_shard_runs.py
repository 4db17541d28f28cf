"""A run on shards is the run on class folders, to the last digit of its log; it resumes and is evaluated there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fastreg.cli import main
from fastreg.pipelines import open_dataset
from tests.pipelines.shard_files import write_parquet, write_shards
from tests.support import train_words, write_tiny_imagenet


@pytest.fixture(scope="module")
def storages(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_tiny_imagenet(root / "folder")
    for split in ("train", "val"):
        source = open_dataset("imagenet", split, root / "folder")
        write_shards(source, root / "tar")
        write_parquet(source, root / "parquet")
    (root / "tar" / "classes.txt").write_text("\n".join(source.classes))
    return root


def run(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["fastreg", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0


def losses(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row[key] for row in rows for key in ("loss", "train_loss", "val_loss") if key in row]


@pytest.mark.slow
def test_runs_on_shards_are_the_run_on_folders(storages, tmp_path, monkeypatch):
    kept = {}
    for storage in ("folder", "tar", "parquet"):
        words = train_words(storages / storage, tmp_path, storage, "--epochs", "1")
        run(monkeypatch, *words)
        if storage == "tar":  # the shards, behind an address and with another split in the pattern
            words[words.index("--data-dir") + 1] = f"file://{storages}/tar/{{split}}-*.tar"
            run(monkeypatch, *words, "--resume", str(tmp_path / "tar"), "--epochs", "2", "--allow-changes")
        kept[storage] = losses(tmp_path / storage)
    count = len(kept["folder"])
    assert count > 1
    assert kept["tar"][:count] == kept["parquet"] == kept["folder"]
    assert len(kept["tar"]) > count
    scores = {}
    for storage in ("folder", "parquet"):
        evaluation = [
            "eval",
            str(tmp_path / storage),
            "--data-dir",
            str(storages / storage),
            "--device",
            "cpu",
            "-j",
            "1",
        ]
        run(monkeypatch, *evaluation)
        scores[storage] = json.loads((tmp_path / storage / "scorecard.json").read_text())["suites"]
    assert json.dumps(scores["folder"]).count("error") == json.dumps(scores["parquet"]).count("error") > 0
