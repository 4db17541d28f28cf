"""Repeated augmentation and class-balanced sampling: orders in which a sample occurs several times in an epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from fastreg.errors import InputError
from fastreg.kernels import philox
from fastreg.pipelines import Order, crop, make_loader, open_dataset
from tests.support import peer

CLASSES = np.repeat([4, 0, 2, 7], [3, 40, 11, 46])  # labels 1, 3, 5 and 6 have no images


def ranks(batch: int, world: int, **more) -> list[list[np.ndarray]]:
    """The keys of each step of an epoch, for each rank."""
    orders = [Order(100, batch, True, seed=5, rank=r, world=world, **more) for r in range(world)]
    return [[keys for _, keys in order.batches()] for order in orders]


def globals_(batch: int, world: int, **more) -> list[list[int]]:
    """The keys of each global batch, rank after rank."""
    return [np.concatenate(step).tolist() for step in zip(*ranks(batch, world, **more))]


@pytest.mark.parametrize("more", [{"repeats": 3}, {"balance": CLASSES}, {"balance": CLASSES, "repeats": 2}])
def test_keys_depend_on_the_seed_the_epoch_and_the_position_only(more):
    assert globals_(24, 1, **more) == globals_(6, 4, **more) == globals_(3, 8, **more)
    order = Order(100, 6, True, seed=5, rank=1, world=2, accumulate=2, **more)
    for epoch in (0, 1):
        start = epoch * order.samples_per_epoch
        whole = [keys.tolist() for _, keys in order.batches(start)]
        for done in range(len(whole)):
            assert [keys.tolist() for _, keys in order.batches(start + 12 * done)] == whole[done:]
    assert order.steps_per_epoch == 100 // 24  # an epoch keeps its length
    assert not np.array_equal(order.epoch(0), order.epoch(1))
    keys = order.epoch(0)
    assert len(np.unique(keys)) == len(keys) == 100  # no two draws are equal
    indices, occurrences = philox.split_keys(keys)
    assert 0 <= indices.min() <= indices.max() < 100
    for index, count in Counter(indices.tolist()).items():
        assert sorted(occurrences[indices == index]) == list(range(count))


@pytest.mark.parametrize(("repeats", "world", "batch"), [(3, 3, 8), (3, 4, 6), (2, 4, 6), (4, 2, 7)])
def test_repeats_are_those_of_timm(repeats, world, batch, monkeypatch):
    """The same images as often in every global batch as RepeatAugSampler's, which are spread over the ranks."""
    timm = peer("timm")
    order = Order(100, batch, True, seed=5, world=world)
    monkeypatch.setattr(torch, "randperm", lambda n, generator: torch.from_numpy(order.epoch(0)))
    sampler = timm.data.distributed_sampler.RepeatAugSampler
    theirs = [list(sampler(range(100), world, r, num_repeats=repeats, selected_round=0)) for r in range(world)]
    ours = ranks(batch, world, repeats=repeats)
    for step in range(100 // (batch * world)):
        rows = slice(step * batch, (step + 1) * batch)
        wanted = Counter(index for own in theirs for index in own[rows])
        found = [philox.split_keys(own[step])[0].tolist() for own in ours]
        assert Counter(index for own in found for index in own) == wanted
        if world >= repeats:  # different processes get different repeats of an image
            assert all(len(set(own)) == batch for own in found)


def test_class_balance_gives_every_class_its_share_and_repeats_as_little_as_possible():
    """100 images of classes of 3, 40, 11 and 46: 25 of each."""
    indices, occurrences = philox.split_keys(Order(100, 10, True, seed=1, balance=CLASSES).epoch(3))
    assert Counter(CLASSES[indices].tolist()) == {4: 25, 0: 25, 2: 25, 7: 25}
    for label, count in ((4, 3), (0, 40), (2, 11), (7, 46)):
        times = Counter(indices[CLASSES[indices] == label].tolist())
        assert max(times.values()) - min(times.values()) <= 1
        assert len(times) == min(count, 25)
    assert occurrences.max() == 8  # 25 = 8 x 3 + 1
    uneven = Order(103, 10, True, balance=np.append(CLASSES, [0, 0, 0]))
    shares = [Counter(np.append(CLASSES, [0, 0, 0])[philox.split_keys(uneven.epoch(e))[0]].tolist()) for e in range(40)]
    assert {share[label] for share in shares for label in share} == {25, 26}
    assert all(sum(share.values()) == 103 for share in shares)
    # 3 of 4 classes get one more: each class in about 30 of 40 epochs
    assert all(18 <= sum(share[label] == 26 for share in shares) <= 39 for label in (4, 0, 2, 7))
    first = Counter(np.concatenate([philox.split_keys(uneven.epoch(e))[0] for e in range(200)]).tolist())
    in_class = np.array([first[i] for i in np.flatnonzero(np.append(CLASSES, [0, 0, 0]) == 0)])
    assert in_class.min() > 0.75 * in_class.mean()  # every image of a large class has its turn


@pytest.fixture(scope="module")
def train(data):
    return open_dataset("imagenet", "train", data / "imagenet")


@pytest.mark.parametrize("name", ["folder", "dali", "synthetic"])
def test_every_loader_crops_repeats_anew(train, name):
    with make_loader(train, loader=name, train=True, batch_size=24, size=32, seed=5, repeats=3) as loader:
        batch = next(loader.batches())
    with make_loader(train, loader=name, train=True, batch_size=24, size=32, seed=5) as loader:
        plain = next(loader.batches())
    assert plain.occurrences is None
    assert torch.equal(plain.keys, plain.indices)
    assert batch.occurrences.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert batch.indices.view(3, 8).tolist() == [plain.indices[:8].tolist()] * 3
    assert torch.equal(batch.labels, torch.from_numpy(train.labels)[batch.indices])
    assert torch.equal(batch.keys, batch.indices + 2**32 * batch.occurrences)
    if name != "synthetic":  # whose images are noise
        assert torch.equal(batch.images[:8], plain.images[:8])  # occurrence 0 draws as without repeats
        assert not any(torch.equal(*pair) for pair in zip(batch.images[:8], batch.images[8:16]))
        assert not any(torch.equal(*pair) for pair in zip(batch.images[8:16], batch.images[16:]))


def test_boxes_and_shifts_of_an_occurrence_are_its_own():
    keys = philox.sample_keys(np.repeat(np.arange(50), 3), np.tile(np.arange(3), 50))
    sides = np.full(150, 400)
    boxes = crop.random_boxes(1, keys, 2, sides, sides)
    assert np.array_equal(boxes[::3], crop.random_boxes(1, np.arange(50), 2, sides[:50], sides[:50]))
    assert len(np.unique(boxes, axis=0)) > 145
    shifts = crop.shift_boxes(1, keys, 2, (32, 32))
    assert np.array_equal(shifts[::3], crop.shift_boxes(1, np.arange(50), 2, (32, 32)))
    assert not np.array_equal(shifts[1::3], shifts[::3])


def test_an_unknown_sampler_is_an_error(train):
    with pytest.raises(InputError, match=r"`sampler`.*did you mean 'balanced'"):
        make_loader(train, train=True, batch_size=4, size=32, sampler="balance")


def test_evaluation_has_neither_repeats_nor_balance(train):
    with make_loader(train, train=False, batch_size=64, size=16, repeats=3, sampler="balanced") as loader:
        assert torch.cat([batch.keys for batch in loader.batches()]).tolist() == list(range(len(train)))
