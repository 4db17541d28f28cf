"""Corruptions on several threads of the CPU: the results of one thread, and no more threads than PyTorch may use."""

from __future__ import annotations

import threading

import cv2
import pytest
import torch

from fastreg.kernels import corrupt
from fastreg.kernels.corruptions.threads import map_chunks


@pytest.fixture
def threads():
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield torch.set_num_threads
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.mark.parametrize("name", ["gaussian_noise", "glass_blur", "zoom_blur", "fog", "pixelate", "jpeg_compression"])
def test_threads_do_not_change_a_result(name, threads, monkeypatch):
    monkeypatch.setitem(corrupt.__globals__["CHUNK"], "cpu", 2 * 32 * 32 * 3)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (9, 32, 32, 3), dtype=torch.uint8, generator=generator)
    given = {"indices": torch.arange(9), "jpeg": True}
    threads(1)
    alone = corrupt(images, name, 4, **given)
    threads(4)
    assert torch.equal(corrupt(images, name, 4, **given), alone)
    assert torch.get_num_threads() == 4


def test_threads_are_bounded_and_compute_alone(threads):
    threads(3)
    before, running, most, seen = cv2.getNumThreads(), 0, 0, set()
    lock, gate = threading.Lock(), threading.Barrier(3)

    def call(chunk: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if chunk < 3:
            gate.wait(20)
        seen.add((torch.get_num_threads(), cv2.getNumThreads()))
        with lock:
            running -= 1
        return chunk

    assert map_chunks(call, range(20), on_cpu=True) == [*range(20)]
    assert (most, seen) == (3, {(1, 1)})
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, before)


def test_an_error_in_a_thread_is_raised_and_the_threads_are_restored(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        map_chunks(lambda chunk: 1 / chunk, range(4), on_cpu=True)
    assert torch.get_num_threads() == 2
