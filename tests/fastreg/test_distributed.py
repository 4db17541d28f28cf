"""Devices by name, and errors that every rank raises."""

from __future__ import annotations

import pytest
import torch

from fastreg.distributed import World, init_distributed, raise_on_all_ranks, resolve_device
from fastreg.errors import InputError, RunError

ALONE = World(0, 1, torch.device("cpu"))


def test_auto_is_the_cpu_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "meta", "mps", "cuda", "cuda:1"])
def test_a_device_that_does_not_exist_is_refused_by_name(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=name):
        resolve_device(name)
    with pytest.raises(InputError, match=name), init_distributed(name):
        pass


def test_a_gpu_beyond_those_there_is_refused_and_the_one_named_becomes_current(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    with pytest.raises(InputError, match="cuda:9"):
        resolve_device("cuda:9")
    assert resolve_device("cuda") == torch.device("cuda")
    assert current == []  # without an index there is nothing to set
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert current == [torch.device("cuda", 1)]


def test_cuda_without_an_index_is_the_gpu_of_the_local_rank(monkeypatch):
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with init_distributed("cuda") as world:
        assert world == World(0, 1, torch.device("cuda", 1))
    assert current == [torch.device("cuda", 1)]


def test_an_error_of_the_block_is_raised_by_every_rank(monkeypatch):
    with pytest.raises(InputError, match="here"), raise_on_all_ranks(ALONE):
        raise InputError("here")

    def gather(errors, own):
        errors[:] = [own, RunError("there")]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    with pytest.raises(RunError, match="there"), raise_on_all_ranks(World(0, 2, torch.device("cpu"))):
        pass  # this rank has no error of its own
