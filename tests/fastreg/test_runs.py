"""Checkpoints: damaged files, a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from fastreg import files, runs
from fastreg.errors import InputError, RunError


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.pt"
    runs.save_checkpoint(path, {"step": 3, "model": {"weight": torch.arange(1000.0)}})
    return path


def test_a_saved_checkpoint_is_read(saved):
    assert torch.equal(runs.load_checkpoint(saved)["model"]["weight"], torch.arange(1000.0))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_a_flipped_bit_is_noticed(saved, share):
    """torch itself does not verify the checksums that it writes."""
    content = bytearray(saved.read_bytes())
    content[int(share * len(content))] ^= 4
    saved.write_bytes(content)
    with pytest.raises(InputError, match=r"last\.pt is damaged \(cut off, or a checksum does not match\): put back"):
        runs.load_checkpoint(saved)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_file_cut_off_is_noticed(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="is damaged"):
        runs.load_checkpoint(saved)


def test_a_disk_that_fills_up_in_torchs_writer_is_called_full(saved, monkeypatch):
    before = saved.read_bytes()

    class Disk:
        """A file on a disk with room for 3000 bytes."""

        def __init__(self, path, mode):
            self.file, self.room = open_file(path, mode), 3000

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, content):
            self.room -= len(content)
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(content)

    open_file = open
    monkeypatch.setattr(files, "open", Disk, raising=False)
    with pytest.raises(RunError, match=r"cannot write .*last\.pt: No space left on device; the previous file"):
        runs.save_checkpoint(saved, {"model": {"weight": torch.zeros(100_000)}})
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("error", [FileNotFoundError, FileExistsError])
def test_a_folder_that_another_process_removes_meanwhile_is_made_again(error, tmp_path, monkeypatch):
    """``Path.mkdir(exist_ok=True)`` raises FileExistsError if the folder vanishes before it looks whether it is one."""
    mkdir, errors = Path.mkdir, [error()]

    def vanishing(self, *args, **more):
        if errors:
            raise errors.pop()
        return mkdir(self, *args, **more)

    monkeypatch.setattr(Path, "mkdir", vanishing)
    with files.lock(tmp_path / "run"):
        (tmp_path / "run" / "kept").write_text("")
    assert not errors
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(RunError, match=f"{name}: it is no folder"), files.lock(tmp_path / name):
            pass
