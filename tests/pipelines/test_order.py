from __future__ import annotations

import numpy as np
import pytest

from fastreg.errors import InputError
from fastreg.pipelines import Order


def rows(order, position=0):
    return [indices.tolist() for _, indices in order.batches(position)]


def test_two_ranks_see_the_micro_batches_of_one_rank_that_accumulates_two():
    one = rows(Order(50, 4, True, seed=7, accumulate=2))
    two = [rows(Order(50, 4, True, seed=7, rank=r, world=2)) for r in (0, 1)]
    assert one == [batch for pair in zip(*two) for batch in pair]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_evaluation_sees_each_sample_exactly_once(world):
    seen = [i for r in range(world) for batch in rows(Order(101, 7, False, rank=r, world=world)) for i in batch]
    assert sorted(seen) == list(range(101))


def test_an_epoch_is_a_permutation_that_changes_with_epoch_and_seed_only():
    order = Order(1000, 10, True, seed=3)
    first = order.epoch(0)
    assert sorted(first.tolist()) == list(range(1000))
    assert not np.array_equal(first, order.epoch(1))
    assert not np.array_equal(first, Order(1000, 10, True, seed=4).epoch(0))
    assert np.array_equal(first, Order(1000, 50, True, seed=3, world=4, rank=2).epoch(0))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_resume_at_every_batch_of_two_epochs(accumulate):
    order = Order(50, 4, True, seed=1, accumulate=accumulate, rank=1, world=2)
    assert order.steps_per_epoch == 50 // (8 * accumulate)
    for epoch in (0, 1):
        start = epoch * order.samples_per_epoch
        whole = rows(order, start)
        for done in range(len(whole)):
            assert rows(order, start + done * 8) == whole[done:]
    assert rows(order, 0) != rows(order, order.samples_per_epoch)


def test_global_batches_do_not_depend_on_the_number_of_ranks():
    def globals_(batch, world):
        ranks = [rows(Order(64, batch, True, seed=5, rank=r, world=world)) for r in range(world)]
        return [[i for batch in step for i in batch] for step in zip(*ranks)]

    assert globals_(16, 1) == globals_(8, 2) == globals_(2, 8)


@pytest.mark.parametrize(
    "arguments", [{"batch_size": 0}, {"accumulate": 0}, {"rank": 2, "world": 2}, {"batch_size": 200}]
)
def test_impossible_orders_are_one_sentence(arguments):
    with pytest.raises(InputError):
        Order(**{"n": 100, "batch_size": 10, "train": True, **arguments})


def test_a_position_between_batches_is_refused():
    with pytest.raises(InputError, match="`position` 5"):
        next(Order(100, 10, True).batches(5))


@pytest.mark.parametrize("world", [1, 3])
def test_page_order_is_a_shuffle_that_reads_each_page_about_once(monkeypatch, world):
    monkeypatch.setattr("fastreg.pipelines.order.WINDOW", 4)
    pages = np.repeat(np.arange(100), 10)
    orders = [Order(1000, 5, True, 1, rank=r, world=world, pages=pages) for r in range(world)]
    whole = orders[0].epoch(0)
    assert sorted(whole.tolist()) == list(range(1000))
    assert not np.array_equal(whole, orders[0].epoch(1))
    for order in orders:
        mine = np.concatenate(rows(order))
        assert len(mine) == order.steps_per_epoch * 5
        distinct = [len(set(pages[mine[k : k + 40]].tolist())) for k in range(0, len(mine) - 40, 40)]
        assert max(distinct) <= 6  # a window of 4 pages, and the pages cut at its ends
        assert len(set(pages[mine].tolist())) <= 100 // world + 2
        assert np.mean(np.diff(mine) == 1) < 0.2  # shuffled inside
    seen = np.concatenate([np.concatenate(rows(order)) for order in orders])
    assert len(set(seen.tolist())) == len(seen)
    assert rows(orders[0], 10 * 5 * world) == rows(orders[0])[10:]


@pytest.mark.parametrize("arguments", [{"repeats": 3}, {"balance": np.arange(100) % 3}])
def test_page_order_takes_neither_repeats_nor_balance(arguments):
    with pytest.raises(InputError, match="`order` pages"):
        Order(100, 10, True, pages=np.arange(100) // 10, **arguments)
