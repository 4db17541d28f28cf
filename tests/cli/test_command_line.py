"""The command line: bad input is one sentence and an exit code."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastreg.version import __version__
from tests.support import ROOT, environment, fastreg, train_words, write_tiny_imagenet


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_imagenet(tmp_path_factory.mktemp("tiny"), classes=3, train=4, val=2)


def one_sentence(text: str) -> str:
    """The error line; fails when there is a traceback or more than one line beginning with the program's name."""
    assert "Traceback" not in text, text
    lines = [line for line in text.splitlines() if line.startswith("fastreg: ")]
    assert len(lines) == 1, text
    return lines[0]


def test_version_by_command_and_by_module(call):
    assert call("--version")[:2] == (0, f"fastreg {__version__}\n")
    assert fastreg("--version").stdout == f"fastreg {__version__}\n"


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        ("train imagenet", ["fastreg data sample imagenet", "--data-dir", "FASTREG_DATA"]),
        ("train imagenett", ["unknown data set 'imagenett'", "did you mean 'imagenet'"]),
        ("train imagenet --data-dir {data} --reg mixpu", ["unknown method 'mixpu'", "cutmix", "did you mean 'mixup'"]),
        ("train imagenet --data-dir {data} --model resnet19", ["unknown model", "resnet18"]),
        ("train imagenet --data-dir {data} --lr -0.1", ["--lr", "-0.1"]),
        ("train imagenet --data-dir {data} --ls 1.5", ["--ls", "at most 1"]),
        ("train imagenet --data-dir {data} --loader foldr", ["unknown loader", "folder"]),
        ("train imagenet --data-dir {data} --order pages", ["--order pages", ".beton", "data prepare"]),
        ("train imagenet --data-dir {data} --order page", ["unknown --order", "did you mean 'pages'"]),
        ("train imagenet --data-dir {data} --device cuda -b 4", ["--device cuda", "no GPU", "fastreg doctor"]),
        ("train imagenet --data-dir {data} --device foo -b 4", ["--device foo"]),
        ("train imagenet --data-dir {data} --profile -1 -b 4", ["--profile"]),
        ("train ./images", ["./images", "fastreg train folder --data-dir ./images"]),
        ("train imagenet --data-dir {data} --mixup -1", ["--mixup is -1", "at least 0"]),
        ("train imagenet --data-dir {data} --reprob 2", ["--reprob is 2", "at most 1"]),
        ("train imagenet --data-dir {data} --mixup 1 --mixup-prob 2", ["--mixup-prob is 2", "at most 1"]),
        ("eval --data-dir {data} --weights w.pt", ["--weights w.pt needs --model", "`fastreg eval w.pt`"]),
        ("corrupt imagenet c --corruptions fog --severities 1 --data-dir nowhere", ["no imagenet data at nowhere"]),
        ("show corruptions nowhere.png --corruptions fogg", ["did you mean 'fog'"]),
        ("train svhn", ["svhn", "cifar100"]),
        ("recipes zzz", ["zzz", "paper/imagenet"]),
        ("train imagenet --data-dir {data} -b 64", ["64", "12"]),
        ("train imagenet --data-dir {data} --reg-args nonsense", ["--reg-args", "JSON"]),
        ("train imagenet --data-dir nowhere", ["nowhere"]),
        ("train imagenet --lr", ["--lr"]),
        ("eval --suite imagenet-d --data-dir {data}", ["imagenet-d", "imagenet-c"]),
        ("eval", ["no run with a checkpoint"]),
        ("eval nowhere.pt", ["nowhere.pt"]),
        ("report nowhere", ["nowhere"]),
        ("show corruptions nowhere.png", ["nowhere.png"]),
        ("show corruptions nowhere.png --size 0", ["--size is 0"]),
        ("show corruptions nowhere.png --corruption fogg", ["'fogg'", "did you mean 'fog'"]),
        ("data sample imagenot", ["imagenot", "imagenet"]),
        ("bench throughputt", ["throughputt", "throughput"]),
        ("paper table9", ["table9", "table4"]),
        ("frain", ["frain", "Did you mean 'train'? See fastreg --help."]),
        ("data prepare imagenet --from nowhere --to x.beton", ["--from nowhere"]),
        ("corrupt imagenet c", ["no imagenet data", "--data-dir"]),
        ("corrupt imagenet c --data-dir nowhere", ["no imagenet data at nowhere"]),
        ("corrupt {data} c --data-dir {data}", ["--data-dir", "SRC"]),
        ("data info nowhere.beton", ["unknown data set 'nowhere.beton'"]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(call, data, words, fragments):
    code, _, errors = call(*words.format(data=data).split())
    sentence = one_sentence(errors)
    assert code == 2, sentence
    for text in fragments:
        assert text in sentence


@pytest.mark.parametrize("words", ["train imagnet --epochs 1", "train svhn --epochs 1"])
def test_a_name_that_is_no_data_set_to_train_on_is_the_first_error(call, words):
    code, out, errors = call(*words.split())
    assert (code, out) == (2, "")
    assert errors == one_sentence(errors) + "\n"


def test_truncated_jpeg_names_the_file(call, data, tmp_path):
    broken = shutil.copytree(data, tmp_path / "broken")
    victim = next((broken / "train" / "class1").iterdir())
    victim.write_bytes(victim.read_bytes()[:700])
    code, _, errors = call(*train_words(broken, tmp_path, "run", "-b", "4"))
    assert code == 1
    assert victim.name in one_sentence(errors)


def test_text_file_named_jpg_names_the_file(call, data, tmp_path):
    broken = shutil.copytree(data, tmp_path / "broken")
    (broken / "train" / "class1" / "notes.jpg").write_text("not an image")
    code, _, errors = call(*train_words(broken, tmp_path, "run", "-b", "4", "--epochs", "1"))
    assert code == 1
    assert "notes.jpg" in one_sentence(errors)


def test_empty_class_folder_is_named(call, data, tmp_path):
    broken = shutil.copytree(data, tmp_path / "broken")
    (broken / "train" / "void").mkdir()
    code, _, errors = call(*train_words(broken, tmp_path, "run"))
    assert code == 2
    assert "void" in one_sentence(errors)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs")
    done = fastreg(*train_words(data, output, "small", "-b", "4", "--epochs", "1"))
    assert done.returncode == 0, done.stderr
    return output / "small"


def test_class_count_that_differs_from_the_checkpoint(call, run, tmp_path):
    other = write_tiny_imagenet(tmp_path / "other", classes=5, train=1, val=1)
    code, _, errors = call("eval", run, "--suite", "clean", "--data-dir", other)
    assert code == 2
    assert re.search(r"\b3\b.*\b5\b|\b5\b.*\b3\b", one_sentence(errors))


def test_a_checkpoint_that_is_not_one(call, tmp_path, data):
    text, tensor = tmp_path / "text.pt", tmp_path / "tensor.pt"
    text.write_text("hello")
    torch.save({"weight": torch.zeros(3)}, tensor)
    for path in (text, tensor):
        code, _, errors = call("eval", path, "--suite", "clean", "--data-dir", data)
        assert code == 2
        assert path.name in one_sentence(errors)


def test_unwritable_output_folder(call, data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, errors = call(*train_words(data, tmp_path / "file", "run", "-b", "4"))
    assert code == 1
    assert "file" in one_sentence(errors)
    assert (tmp_path / "file").read_text() == "in the way"


FULL_DISK = """
import errno, os, sys
from fastreg import cli, runs
real = os.fsync
def full(descriptor):
    if "last.pt" in os.readlink(f"/proc/self/fd/{descriptor}") and os.environ["FULL"] == "1":
        raise OSError(errno.ENOSPC, "No space left on device")
    real(descriptor)
os.fsync = full
sys.argv = ["fastreg", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.slow
def test_full_disk_keeps_the_previous_checkpoint(data, run, tmp_path):
    kept = shutil.copytree(run, tmp_path / "small")
    before = (kept / "last.pt").read_bytes()
    words = train_words(data, tmp_path, "small", "-b", "4", "--epochs", "2", "--resume", "auto", "--allow-changes")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *words], env=environment(FULL="1"), capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1, done.stderr
    assert "No space left" in one_sentence(done.stderr)
    assert (kept / "last.pt").read_bytes() == before
    assert not list(kept.glob(".*.tmp"))


@pytest.mark.slow
def test_debug_shows_the_traceback():
    done = fastreg("train", "imagenet", "--data-dir", "nowhere", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("words", "where", "message"),
    [
        (
            "data prepare imagenet --from x --to y.beton",
            "pipelines.prepare.write_beton",
            "stopped; the same command continues.",
        ),
        ("data fetch frost", "pipelines.fetch.fetch_files", "stopped; the same command continues."),
        ("corrupt x y", "evaluation.corrupt_dataset.corrupt_dataset", "stopped; the same command continues."),
        ("data verify imagenet", "pipelines.verify_data.verify", "stopped."),
    ],
)
def test_control_c_is_one_sentence_and_exit_code_1(call, monkeypatch, words, where, message):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    module, _, function = where.rpartition(".")
    monkeypatch.setattr(importlib.import_module(f"fastreg.{module}"), function, interrupt)
    for more in ((), ("--debug",)):
        code, out, err = call(*words.split(), *more)
        assert (code, out, err) == (1, "", f"fastreg: {message}\n")
