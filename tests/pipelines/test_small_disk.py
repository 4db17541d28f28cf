"""``data prepare`` on a file system of 2 MiB: one sentence, nothing lost, and the same command continues."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastreg.pipelines import write_beton
from tests.support import environment

SCRIPT = """
import os, subprocess, sys
from fastreg.errors import RunError
from fastreg.pipelines import write_beton
source, disk = sys.argv[1:]

def mount(options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True, capture_output=True)

mount("size=10m")
to = os.path.join(disk, "val.beton")
try:
    write_beton("imagenet", source, to, jpeg_prob=0, max_res=300, workers=1)
except RunError as error:
    print("refused:", error)
print(sorted(os.listdir(disk)), os.statvfs(disk).f_bavail)
mount("remount,size=200m")
print(write_beton("imagenet", source, to, jpeg_prob=0, max_res=300, workers=1)["images"], sorted(os.listdir(disk)))
sys.stdout.flush()
sys.stdout.buffer.write(b"content:" + open(to, "rb").read())
"""


def test_a_full_file_system_while_preparing_loses_nothing(data, tmp_path):
    """In a mount namespace of its own; test_prepare.py has the same with a limit on the size of files."""
    space = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        trial = subprocess.run([*space, "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"no small file system: {error}")
    if trial.returncode:
        pytest.skip(f"no small file system: {trial.stderr.strip()}")
    done = subprocess.run(
        [*space, sys.executable, "-c", SCRIPT, data / "imagenet", tmp_path], env=environment(), capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    text, _, content = done.stdout.partition(b"content:")
    lines = text.decode().splitlines()
    assert lines[0].startswith("refused: cannot write")
    assert "No space left on device; free some space and run the same command to continue" in lines[0]
    assert lines[1].startswith("['val.beton.part', 'val.beton.part.journal']")
    assert lines[2] == "120 ['val.beton']"
    write_beton("imagenet", data / "imagenet", tmp_path / "val.beton", jpeg_prob=0, max_res=300, workers=1)
    assert content == (tmp_path / "val.beton").read_bytes()
