"""Facts of the machine: the CPU's bf16 instructions, and the warning about their absence."""

from __future__ import annotations

import logging

import pytest
import torch

from fastreg.distributed import World
from fastreg.environment import bf16_instructions
from fastreg.training.setup import warn_about_bf16

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx512_bf16 amx_bf16 amx_tile\n", "amx_bf16"),
        ("flags\t\t: fpu avx512f avx512_bf16\n", "avx512_bf16"),
        ("Features\t: fp asimd bf16 i8mm\n", "bf16"),
        ("model name\t: a CPU with bf16\nflags\t\t: fpu avx2\n", ""),
    ],
)
def test_bf16_instructions(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert bf16_instructions(tmp_path / "cpuinfo") == expected
    assert bf16_instructions(tmp_path / "missing") == ""


def test_emulated_bf16_is_warned_about_once(caplog):
    caplog.set_level(logging.WARNING, "fastreg")
    for world, precision, instructions in (
        (World(0, 2, CPU), "bf16", "amx_bf16"),
        (World(0, 2, CPU), "fp32", ""),
        (World(0, 2, GPU), "bf16", ""),
        (World(1, 2, CPU), "bf16", ""),
    ):
        warn_about_bf16(precision, world, instructions)
    assert not caplog.messages
    warn_about_bf16("bf16", World(0, 2, CPU), "")
    assert len(caplog.messages) == 1
