"""Draws of many micro-batches at once are those of each batch alone, to the bit."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from fastreg import methods
from fastreg.kernels.philox import sample_keys
from fastreg.methods.join import plan_and_targets
from fastreg.training import color_jitter, draws
from fastreg.training.draws import Draws

CPU = torch.device("cpu")
NAMES = [*methods.METHODS, "mixup+cutmix", "cutmix+shakedrop", "cutmix+random_erasing", "rand_augment+mixup"]
LAYERS = 5
COLORS = partial(color_jitter.draw, jitter=0.4, lighting=0.1, seed=3)


def coming(count: int, size: int, last: int) -> list[np.ndarray]:
    """Keys of ``count`` micro-batches of ``size`` samples, some of which occur again; the last batch is shorter."""
    random = np.random.default_rng(0)
    sizes = [size] * (count - 1) + [last]
    return [sample_keys(random.integers(0, 10**6, n), random.integers(0, 3, n)) for n in sizes]


def same(one, two) -> bool:
    pairs = list(zip(one, two, strict=True))
    return all((a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in pairs)


@pytest.mark.parametrize("scope", ["batch", "sample"])
@pytest.mark.parametrize("name", NAMES)
def test_many_batches_at_once(name, scope, monkeypatch):
    monkeypatch.setattr(draws, "SAMPLES", 400)  # two or four batches in a call
    more = {"prob": 0.5} if name in ("mixup", "cutmix") else {}
    method = methods.create(name, scope=scope, dataset="cifar10", seed=3, **more)
    for size, last in ((100, 70), (192, 192)):
        keys = coming(9, size, last)
        ahead = Draws(method, LAYERS, COLORS, CPU)
        ahead.expect(keys, 6, 2, 1, 32, True)
        for number, own in enumerate(torch.from_numpy(k) for k in keys):
            step, micro = 6 + number // 2, number % 2
            assert len(ahead._ready) < 400 // size
            drawn = ahead.take(own, step, micro, 1, 32, True)
            labels = own % 10
            plan, targets = method.draw(labels, own, step, epoch=1, size=32)
            ours, weights = plan_and_targets(drawn["plan"], labels)
            assert same(ours, plan)
            assert same(weights, targets)
            if method.fields is not None:
                fields = method.fields(own, step, layers=LAYERS, epoch=1)
                assert drawn["fields"].keys() == fields.keys()
                assert same(drawn["fields"].values(), fields.values())
            for field, value in COLORS(own.numpy(), 1).items():
                assert np.array_equal(drawn["colors"][field].numpy(), value)
        assert not ahead._ready


def test_a_batch_that_was_not_expected_is_drawn_from_its_own_keys():
    """Images that were left out, a step that was not named, and another epoch, size or mixing."""
    method = methods.create("mixup+cutmix", dataset="cifar10", seed=3)
    keys = coming(4, 100, 100)
    ahead = Draws(method, 0, None, CPU)
    ahead.expect(keys, 0, 1, 0, 32, True)
    whole, fewer = torch.from_numpy(keys[0]), torch.from_numpy(keys[0][3:])
    for given, step, epoch, size, mixing in (
        (fewer, 0, 0, 32, True), (whole, 9, 0, 32, True), (whole, 1, 1, 32, True), (whole, 1, 0, 16, True),
        (whole, 1, 0, 32, False),
    ):  # fmt: skip
        draw = method.draw if mixing else method.plain
        plan, targets = draw(given % 10, given, step, epoch=epoch, size=size)
        ours, weights = plan_and_targets(ahead.take(given, step, 0, epoch, size, mixing)["plan"], given % 10)
        assert same(ours, plan)
        assert same(weights, targets)


def test_arrays_begin_where_a_kernel_loads_whole_vectors():
    """Launchers specialize kernels by pointers' alignment: a batch of 100 must look like the one before."""
    ahead = Draws(methods.create("mixup+cutmix", dataset="cifar10"), 0, None, CPU)
    ahead.expect(coming(5, 99, 99), 0, 1, 0, 32, True)
    for step, own in enumerate(coming(5, 99, 99)):
        drawn = ahead.take(torch.from_numpy(own), step, 0, 0, 32, True)["plan"]
        assert len(drawn) == 6
        for array in drawn.values():
            assert (array.storage_offset() * array.element_size()) % 16 == 0
            assert array.is_contiguous()
