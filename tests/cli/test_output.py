"""A run continues, and ends with its own exit code, after the reader of its output is gone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fastreg import runs
from fastreg.log import open_closed_streams, printable, write_line
from tests.support import command, environment, fastreg, train_words, write_tiny_imagenet


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_tiny_imagenet(tmp_path_factory.mktemp("tiny"), classes=2, train=8, val=2, side=32)


def words(images: Path, output: Path) -> list[str]:
    return command(*train_words(images, output, "run", "--epochs", "2", "--log-interval", "1"))


def assert_complete(child: subprocess.Popen, output: Path) -> None:
    assert child.wait(240) == 0
    rows = runs.read_rows(output / "run" / "log.jsonl")
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [0, 1]


@pytest.mark.parametrize("what", ["recipes", "--help"])
def test_a_full_output_is_named(what):
    with open("/dev/full", "w") as full:
        done = subprocess.run(command(what), env=environment(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "fastreg: standard output: No space left on device.\n")


@pytest.mark.slow
def test_pipes_without_a_reader(images, tmp_path):
    child = subprocess.Popen(
        words(images, tmp_path), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline().startswith("recipe")
    child.stdout.close()
    child.stderr.close()
    assert_complete(child, tmp_path)


@pytest.mark.slow
def test_streams_that_are_closed_at_the_start(images, tmp_path):
    line = subprocess.list2cmdline(words(images, tmp_path))
    child = subprocess.Popen(["sh", "-c", f"exec {line} <&- >&- 2>&-"], env=environment())
    assert_complete(child, tmp_path)


@pytest.mark.slow
def test_a_terminal_that_is_closed(images, tmp_path):
    """The progress bar is printed to this terminal."""
    ours, theirs = os.openpty()
    child = subprocess.Popen(
        words(images, tmp_path), env=environment(), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    seen = b""
    while b"epoch 1/2" not in seen:
        seen += os.read(ours, 1000)
    os.close(ours)
    assert_complete(child, tmp_path)


def test_an_error_without_a_reader_keeps_its_exit_code(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    child = subprocess.Popen(command("train", "nothing"), env=environment(), stdout=writer, stderr=writer)
    os.close(writer)
    assert child.wait(240) == 2


def test_lines_for_closed_streams_are_dropped(tmp_path):
    write_line(None, "nowhere")
    with open(tmp_path / "file", "w") as stream:
        write_line(stream, "kept")
    write_line(stream, "dropped")
    assert (tmp_path / "file").read_text() == "kept\n"


def test_open_streams_stay_as_they_are():
    before = [os.fstat(number).st_ino for number in range(3)]
    open_closed_streams()
    assert [os.fstat(number).st_ino for number in range(3)] == before


def test_lines_show_what_a_terminal_cannot(tmp_path):
    """A name with an escape sequence steers no terminal; one without an encoding loses no later line."""
    path = tmp_path / "out"
    with open(path, "w", encoding="ascii") as stream:
        write_line(stream, "a\x1b]0;title\x07b\x9b31m\tc\rd")
        write_line(stream, os.fsdecode(b"caf\xe9 ") + "é –")
        write_line(stream, "the last one")
    lines = [rb"a\x1b]0;title\x07b\x9b31m" + b"\t" + rb"c\x0dd", rb"caf\udce9 \xe9 \u2013", b"the last one", b""]
    assert path.read_bytes().split(b"\n") == lines
    assert printable("日本 é\n") == "日本 é\n"


@pytest.mark.slow
def test_commands_print_no_escape_sequence_from_names(tmp_path):
    evil = "\x1b[2Jevil"
    for split in ("train", "val"):
        folder = tmp_path / "set" / split / evil
        folder.mkdir(parents=True)
        (folder / f"{evil}.jpg").write_bytes(b"broken")
    for words in (["data", "verify", "folder"], ["data", "info", "folder"]):
        done = fastreg(*words, "--data-dir", str(tmp_path / "set"))
        assert "\x1b" not in done.stdout + done.stderr, words
        assert "Traceback" not in done.stderr
    done = fastreg("data", "verify", "folder", "--data-dir", str(tmp_path / "set"))
    assert r"\x1b[2Jevil" in done.stdout
    done = fastreg("data", "info", "folder", "--data-dir", str(tmp_path / "set" / evil))
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
