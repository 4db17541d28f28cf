"""`fastreg data prepare`: it stops and continues, refuses what cannot be, and never leaves half a file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from fastreg.errors import InputError
from fastreg.pipelines import open_dataset, write_beton

PREPARE = """
import sys
from fastreg.pipelines import write_beton
write_beton("imagenet", sys.argv[1], sys.argv[2], jpeg_prob=0, workers=1)
"""


def test_control_c_while_preparing_then_the_same_command_continues(data, tmp_path):
    whole, path = tmp_path / "whole" / "val.beton", tmp_path / "val.beton"
    write_beton("imagenet", data / "imagenet", whole, jpeg_prob=0)
    journal = path.with_name("val.beton.part.journal")
    child = subprocess.Popen(
        [sys.executable, "-c", PREPARE, str(data / "imagenet"), str(path)], stderr=subprocess.DEVNULL
    )
    while not journal.exists() or journal.stat().st_size < 1200:  # some pages are durable
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) != 0
    assert not path.exists()
    with pytest.raises(InputError, match="other settings"):
        write_beton("imagenet", data / "imagenet", path, quality=50)
    write_beton("imagenet", data / "imagenet", path, jpeg_prob=0)
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["val.beton", "whole"]


def test_a_full_disk_while_preparing_loses_nothing(data, tmp_path):
    path = tmp_path / "val.beton"
    limit = 20 << 20
    child = subprocess.run(
        [sys.executable, "-c", PREPARE, str(data / "imagenet"), str(path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        ),
    )
    assert "RunError: cannot write" in child.stderr
    assert "run the same command to continue" in child.stderr
    assert not path.exists()
    made = write_beton("imagenet", data / "imagenet", path, jpeg_prob=0)
    assert made["images"] == 120
    assert len(open_dataset("imagenet", "val", path)) == 120


@pytest.mark.parametrize(
    ("flag", "arguments"),
    [
        ("--jpeg-prob", {"jpeg_prob": 1.5}),
        ("--quality", {"quality": 0}),
        ("--max-res", {"max_res": 0}),
        ("--raw", {"raw": 100_000}),
        ("--to", {"to": "val.bin"}),
    ],
)
def test_unusable_arguments_name_the_flag(data, tmp_path, flag, arguments):
    with pytest.raises(InputError, match=flag):
        write_beton("imagenet", data / "imagenet", **{"to": tmp_path / "val.beton", **arguments})
    assert os.listdir(tmp_path) == []
