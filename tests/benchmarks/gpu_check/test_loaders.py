"""Loader checks of the GPU check: they pass on the CPU, and fail for a loader that delivers other batches."""

from __future__ import annotations

import pytest
import torch

from fastreg.benchmarks.gpu_check import loaders
from fastreg.benchmarks.gpu_check.check import compare, run_check
from fastreg.pipelines.staging import Staging

CPU = torch.device("cpu")
CHECKS = {check.name: check for check in loaders.loader_checks()}


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_passes_on_the_cpu(name):
    result = run_check(CHECKS[name], CPU)
    assert result["ok"], result["detail"]
    assert not result["detail"]  # not "not checked": the reference's package is installed
    images, labels, *_ = CHECKS[name].make(CPU)
    assert len(images) == len(labels) == loaders.EPOCHS * loaders.IMAGES


def test_dali_is_compared_with_pillow():
    assert loaders._dali(CPU)[0].all()


@pytest.mark.parametrize("name", ["loader files over the side stream", "loader dali against Pillow"])
def test_a_buffer_used_again_too_early_fails(name, monkeypatch):
    wanted = CHECKS[name].make(CPU)
    honest = Staging.batch

    def stale(self, images, labels, indices, boxes):
        """A batch with the previous batch's content, as if its buffer were reused before the copy ended."""
        last, self.last = getattr(self, "last", images), images.clone()
        return honest(self, last, labels, indices, boxes)

    monkeypatch.setattr(Staging, "batch", stale)
    got = CHECKS[name].make(CPU)
    assert compare(got, got, wanted, CHECKS[name])
