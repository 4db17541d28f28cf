"""What a newcomer types first: paths in place of names, names in place of flags, and missing files."""

from __future__ import annotations

import sys

import pytest

from fastreg import training
from fastreg.cli import main
from tests.support import write_tiny_imagenet


@pytest.fixture
def fastreg(monkeypatch, capsys, tmp_path):
    """Run a command line in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTREG_DATA", raising=False)

    def run(words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fastreg", *words.split()])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The configurations of the runs that a command line starts."""
    seen = []
    monkeypatch.setattr(training, "train", lambda config, **more: seen.append(config) or tmp_path / "run")
    return seen


@pytest.mark.parametrize("path", ["./photos", "photos", "photos/"])
def test_a_folder_in_place_of_a_name_is_a_folder_of_images(path, fastreg, started, tmp_path):
    write_tiny_imagenet(tmp_path / "photos")
    code, _, err = fastreg(f"train {path}")
    assert code == 0, err
    assert (started[0].dataset, started[0].data_dir) == ("folder", path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train ./photos", "DATASET ./photos does not exist: a path stands for `fastreg train folder"),
        ("train photos", "unknown data set 'photos': known are imagenet, cifar10, cifar100, folder, gan, or a folder."),
        ("train . --data-dir .", "DATASET . and --data-dir . are both folders: give one."),
        ("train imagenet photos", "extra argument(s) (photos). The folder of a data set is --data-dir DIR."),
        ("train imagenet --data-dir /nowhere", "no imagenet data at /nowhere: it does not exist; correct --data-dir,"),
        ("train imagenet --gpus 8", "--gpus 8: this machine has no GPU; --device cpu starts processes on its cores."),
        ("train imagenet --name a/b", "--name is 'a/b': give the name of one folder; --output is the folder above it."),
        ("train imagenet --name ..", "--name is '..': give the name of one folder"),
        ("train imagenet --reg nope", "--reg: unknown method 'nope': known are none, mixup"),
        ("train imagenet --sched onecylce", "unknown --sched 'onecylce': known are step, cosine"),
        ("eval imagenet", "imagenet is a data set, and the first word is a run folder or checkpoint: give --data"),
        ("eval --weights nofile --model resnet18", "--weights nofile is not a file: give the path of one."),
        ("eval --weights nofile", "`fastreg eval nofile` (nofile is no file)."),
        ("eval --weights file", "--weights file needs --model, the architecture"),
        ("eval --suite nope", "--suite: unknown suite 'nope': known are clean"),
        ("show corruptions nowhere.png --corruption nope", "--corruption: unknown corruption 'nope': known are"),
        ("recipes nope", "unknown recipe 'nope': `fastreg recipes` lists all"),
        ("train imagenet --recipe nope", "unknown --recipe 'nope': `fastreg recipes` lists all"),
    ],
)
def test_errors(words, message, fastreg, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = fastreg(words)
    assert code == 2
    assert message in err


def test_info_is_a_table_with_a_column_for_each_split(fastreg, tmp_path):
    write_tiny_imagenet(tmp_path / "photos", val=3)
    code, out, _ = fastreg("data info photos")
    assert code == 0
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    rows = {row[0]: row[1:] for row in lines if row[0]}
    assert rows["images"] == ["64", "12"]
    assert rows["classes"] == ["4", "4"]
    assert rows["images per class"] == ["16", "3"]
    assert rows["formats"] == ["JPEG 64", "JPEG 12"]
    assert "folder at photos" in out
