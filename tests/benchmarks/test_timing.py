"""Timing of calls, and the copy that is their limit."""

from __future__ import annotations

import time

import pytest
import torch

from fastreg.benchmarks.peers.copy_kernel import copy, copy_bytes
from fastreg.benchmarks.timing import MIN_ROUNDS, buffer_sets, measure, over, summary

CPU = torch.device("cpu")


def test_summary_is_median_and_quartiles():
    assert summary([5.0, 1.0, 3.0, 2.0, 4.0])[:4] == (3.0, 2.0, 4.0, 5)
    assert summary([7.0])[:4] == (7.0, 7.0, 7.0, 1)


def test_a_call_twice_as_long_takes_twice_the_time():
    timings = measure({"short": lambda i: time.sleep(0.01), "long": lambda i: time.sleep(0.02)}, CPU, seconds=0.3)
    assert 10_000 <= timings["short"].us < timings["long"].us
    assert timings["long"].low >= 20_000
    assert timings["short"].runs == timings["long"].runs >= MIN_ROUNDS


def test_variants_are_interleaved_and_walk_through_the_sets():
    seen: list[tuple[str, int]] = []

    def call(name: str):
        def one(i: int) -> None:
            seen.append((name, i))
            time.sleep(0.003)  # longer than a sample, so that a sample is one call

        return one

    measure({"a": call("a"), "b": call("b")}, CPU, sets=3, seconds=0.05)
    tail = [name for name, _ in seen[-2 * MIN_ROUNDS :]]
    assert tail == ["a", "b"] * MIN_ROUNDS
    assert {i for name, i in seen if name == "a"} == {0, 1, 2}


def test_over_takes_the_ith_of_each_stock():
    assert over(lambda a, b: (a, b), "xyz", [1, 2, 3])(1) == ("y", 2)


def test_a_cpu_has_two_buffer_sets():
    assert buffer_sets(CPU, 10**9) == 2


def test_the_copy_copies():
    """On the CPU; the kernel is tested in the interpreter."""
    a = torch.arange(5000, dtype=torch.int32).remainder(120).to(torch.uint8).view(1, 50, 100, 1)
    assert torch.equal(copy([a], torch.float32)(), a.flatten().float())
    assert torch.equal(copy([a, a], torch.float16)(), 2 * a.flatten().half())
    x = torch.randn(2, 3, 9, 7).contiguous(memory_format=torch.channels_last)
    assert torch.equal(copy([x, x], torch.float32)(), 2 * x.permute(0, 2, 3, 1).flatten())


def test_bytes_of_a_copy():
    a = torch.zeros(1000, dtype=torch.uint8)
    assert copy_bytes([a], torch.bfloat16) == 3000
    assert copy_bytes([a, a], torch.bfloat16) == 4000
    with pytest.raises(ValueError, match="one tensor, or two"):
        copy([a, a, a], torch.float32)
