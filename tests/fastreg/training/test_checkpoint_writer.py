"""Checkpoints written in the background against those written at once."""

from __future__ import annotations

import threading
from collections import OrderedDict

import pytest
import torch

from fastreg import runs
from fastreg.errors import RunError
from fastreg.training.checkpoint_writer import CheckpointWriter, snapshot


def state() -> dict:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    base = torch.arange(100.0)
    shared = {"a": base[10:20], "b": base[15:90].view(5, 15).t()}
    return {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "shared": shared, "step": 3, "x": [1, None]}


def test_the_file_is_the_one_of_a_write_at_once_bit_for_bit_whatever_follows(tmp_path, monkeypatch):
    given = state()
    (tmp_path / "a").mkdir()
    runs.save_checkpoint(tmp_path / "a" / "last.pt", given)
    begin, save = threading.Event(), runs.save_checkpoint

    def late(path, content):
        begin.wait(30)
        save(path, content)

    monkeypatch.setattr(runs, "save_checkpoint", late)
    writer = CheckpointWriter()
    writer.write({tmp_path / "b" / "last.pt": given})
    for tensor in (*given["model"].values(), *given["shared"].values()):
        tensor.zero_()  # training goes on
    given["step"] = 4
    begin.set()
    writer.wait()
    assert (tmp_path / "b" / "last.pt").read_bytes() == (tmp_path / "a" / "last.pt").read_bytes()


def test_a_late_write_is_waited_for_and_files_keep_their_order(tmp_path, monkeypatch):
    written, running = [], []

    def save(path, content):
        running.append(path)
        assert len(running) == 1
        written.append((path.name, content["step"]))
        running.pop()

    monkeypatch.setattr(runs, "save_checkpoint", save)
    writer = CheckpointWriter()
    for step in range(20):
        writer.write({tmp_path / "best.pt": {"step": step}, tmp_path / "last.pt": {"step": step}})
    writer.wait()
    assert written == [(name, step) for step in range(20) for name in ("best.pt", "last.pt")]
    assert threading.active_count() == 1 or not any(t.name == "fastreg-checkpoint" for t in threading.enumerate())


def test_a_failed_write_is_reported_at_the_next_one_or_at_the_end(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    writer = CheckpointWriter()
    for report in (writer.wait, lambda: writer.write({tmp_path / "last.pt": {"step": 1}})):
        writer.write({tmp_path / "file" / "last.pt": {"step": 0}})
        with pytest.raises(RunError, match="cannot write"):
            report()
    assert not (tmp_path / "last.pt").exists()
    writer.write({tmp_path / "last.pt": {"step": 1}})
    writer.wait()
    assert runs.load_checkpoint(tmp_path / "last.pt")["step"] == 1


def test_a_snapshot_keeps_strides_sharing_and_containers():
    given = state()
    copied = snapshot(given)
    assert isinstance(copied["model"], OrderedDict)
    assert copied["model"]._metadata == given["model"]._metadata
    assert copied["model"]["0.weight"].stride() == given["model"]["0.weight"].stride()
    a, b = copied["shared"]["a"], copied["shared"]["b"]
    assert (
        a.untyped_storage().data_ptr()
        == b.untyped_storage().data_ptr()
        != given["shared"]["a"].untyped_storage().data_ptr()
    )
