"""Counts of the executed path: sectors of streaming kernels, and counts that are known beforehand."""

from __future__ import annotations

import pytest

from fastreg.kernels.registry import operations
from tests.ptx.predictions import count, page, predict

# without losses of few classes, whose labels take a sector per row, and class weights, which each row reads again
STREAMS = [
    op
    for op in operations()
    if op.aot
    and all(v.kind in ("stream", "ragged") for v in op.aot)
    and (op.name.startswith("augment") or op.name.endswith(("_21848", "_21841", "_step", "quantise")))
    and not op.name.startswith("weighted")
]
BY_NAME = {op.name: op for op in operations()}


@pytest.mark.parametrize("op", STREAMS, ids=lambda op: op.name)
def test_a_streaming_kernel_touches_few_more_sectors_than_its_bytes(op, emulator):
    """Of 32 bytes, each counted once per program."""
    counts, least = count(emulator, op, sample=12)
    # the least bytes are those of the whole batch: the boxes and flips of twelve programs need a little more or less
    limit = 1.10 if op.name in ("augment_cutmix", "augment_gaussian_noise", "augment_all") else 1.05
    assert 32 * sum(c.touched for c in counts) <= limit * least


def test_the_attacks_step_is_counted_exactly(emulator):
    """Two loads and a store of 16 bytes per lane for 4 floats: 3 accesses of 16 sectors per 128 elements."""
    (counts,), least = count(emulator, BY_NAME["fgsm_step"], sample=3)
    warps = least / 12 / 128
    assert counts.accesses["global loads"] == 2 * warps
    assert counts.accesses["global stores"] == warps
    assert counts.sectors == counts.touched == 3 * 16 * warps
    assert counts.wavefronts == 0
    assert counts.issued["memory"] == 3 * warps


def test_a_prediction_is_the_largest_of_its_parts(emulator):
    prediction = predict(emulator, BY_NAME["fgsm_step"])
    assert prediction.seconds("H100") == max(prediction.issue, prediction.cache, prediction.memory["H100"], 2e-6)
    assert prediction.memory["H200"] < prediction.memory["H100"]
    text = page(iter([prediction]))
    assert "no measurements" in text
    assert text.endswith(prediction.row() + "\n")
