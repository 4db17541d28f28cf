"""A .beton file that becomes shorter while it is read, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fastreg.pipelines import write_beton
from tests.support import environment

READ = """
import os, sys
from fastreg.errors import RunError
from fastreg.pipelines import make_loader, open_dataset
source = open_dataset("imagenet", "val", sys.argv[1])
with make_loader(source, train=sys.argv[2] == "train", batch_size=8, size=32, workers=1) as loader:
    batches = loader.batches()
    next(batches)
    os.truncate(sys.argv[1], os.path.getsize(sys.argv[1]) // 16)
    try:
        list(batches)
    except (RunError, OSError) as error:
        print(error)
"""


@pytest.mark.parametrize("raw", [None, 64])
@pytest.mark.parametrize("how", ["train", "evaluate"])
def test_a_beton_file_cut_while_it_is_read_is_named(data, tmp_path, raw, how):
    """A memory map would end the process with SIGBUS."""
    path = tmp_path / "val.beton"
    write_beton("imagenet", data / "imagenet", path, raw=raw)
    done = subprocess.run(
        [sys.executable, "-c", READ, path, how], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert str(path) in done.stdout
    assert "was cut to" in done.stdout
    assert os.path.getsize(path)
