"""Philox on the host: published vectors, distributions, and independence of everything but the counter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fastreg.kernels import philox

# counter, key, output of the generator's authors' known-answer test (Random123, kat_vectors)
KNOWN = [
    ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((2**32 - 1,) * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        0x299F31D0A4093822,
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(monkeypatch, counter, key, output):
    monkeypatch.setitem(philox.OPERATIONS, "known", counter[3])
    drawn = philox.words(key, *counter[:3], "known")
    assert " ".join(f"{w:08x}" for w in drawn) == output


def test_operation_ids_are_unique_and_named():
    ids = list(philox.OPERATIONS.values())
    assert len(set(ids)) == len(ids)
    with pytest.raises(ValueError, match="`operation` is 'no such operation'"):
        philox.words(0, 0, 0, 0, "no such operation")


def test_negative_and_large_seeds_are_taken_modulo_two_to_the_64():
    draw = [philox.words(seed, 0, 0, 0, "flip") for seed in (-1, 2**64 - 1, philox.signed(2**64 - 1))]
    assert (draw[0] == draw[1]).all()
    assert (draw[0] == draw[2]).all()


def test_a_sample_draws_the_same_in_any_batch():
    samples = np.array([5, 99, 2**31 + 7, 0])
    whole = philox.field(philox.normal, 3, samples, 50, 2, "augment_noise")
    for i, sample in enumerate(samples):
        assert (philox.field(philox.normal, 3, [sample], 50, 2, "augment_noise")[0] == whole[i]).all()
    assert (philox.field(philox.normal, 3, samples, 21, 2, "augment_noise") == whole[:, :21]).all()
    together = philox.beta(3, 0.4, samples, 2, "mixup_lambda")
    assert (together == [philox.beta(3, 0.4, s, 2, "mixup_lambda") for s in samples]).all()


def test_every_word_of_the_counter_and_the_seed_matters():
    base = philox.words(0, 0, 0, 0, "flip")
    others = [
        (1, 0, 0, 0, "flip"),
        (0, 1, 0, 0, "flip"),
        (0, 0, 1, 0, "flip"),
        (0, 0, 0, 1, "flip"),
        (0, 0, 0, 0, "crop"),
    ]
    assert all((philox.words(*other) != base).any() for other in [*others, (2**32, 0, 0, 0, "flip")])


def test_an_occurrence_enters_the_last_word_and_the_first_one_changes_nothing(monkeypatch):
    """Against the generator itself, with the counter written out."""
    indices, occurrences = np.array([7, 7, 2**31]), np.array([0, 5, 2**20])
    keys = philox.sample_keys(indices, occurrences)
    assert [part.tolist() for part in philox.split_keys(keys)] == [indices.tolist(), occurrences.tolist()]
    drawn = philox.words(9, np.arange(3)[:, None], keys, 4, "flip")
    assert (drawn[:, 0] == philox.words(9, np.arange(3), 7, 4, "flip")).all()
    for i in range(3):
        monkeypatch.setitem(philox.OPERATIONS, "written", philox.OPERATIONS["flip"] + occurrences[i] * 2**10)
        assert (drawn[:, i] == philox.words(9, np.arange(3), indices[i], 4, "written")).all()
    assert max(philox.OPERATIONS[name] for name in philox.OPERATIONS if name != "written") < 2**10
    assert (philox.words(9, 0, -1, 4, "flip") == philox.words(9, 0, 2**32 - 1, 4, "flip")).all()
    assert philox.sample_keys(indices, None) is indices


def test_uniform_and_normal_follow_their_distributions():
    w = philox.words(1, np.arange(1 << 17), 7, 0, "flip")
    u, n = philox.uniform(w).ravel(), philox.normal(w).ravel()
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert stats.kstest(n, "norm").pvalue > 1e-3
    for moment, expected in enumerate((0, 1, 0, 3), start=1):
        assert np.mean(n.astype(float) ** moment) == pytest.approx(expected, abs=0.03)
    pairs = n.reshape(-1, 4)
    assert np.abs(np.corrcoef(pairs.T) - np.eye(4)).max() < 0.01
    assert np.abs(np.corrcoef(pairs.T**2) - np.eye(4)).max() < 0.01


def test_extreme_words_give_finite_normals():
    extremes = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    pairs = np.stack(np.meshgrid(extremes, extremes), -1).reshape(-1, 2)
    drawn = philox.normal(pairs)
    assert np.isfinite(drawn).all()
    assert 6.6 < np.abs(drawn).max() < 6.8


def test_integers_are_even_and_in_range():
    drawn = philox.integers(philox.words(2, np.arange(30000), 0, 0, "crop"), 7).ravel()
    assert set(drawn) == set(range(7))
    assert stats.chisquare(np.bincount(drawn)).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 3.0, 100.0])
def test_beta_follows_its_distribution(alpha):
    drawn = philox.beta(0, alpha, np.arange(20000), 0, "mixup_lambda")
    # near 1 small alphas run out of float64; the distribution is symmetric, so the lower half is tested
    low = drawn[drawn < 0.5]
    assert stats.binomtest(len(low), 20000).pvalue > 1e-3
    assert stats.kstest(low, lambda x: stats.beta(alpha, alpha).cdf(x) * 2).pvalue > 1e-3


def test_beta_refuses_a_bad_alpha():
    with pytest.raises(ValueError, match=r"`alpha` is 0\.0: give a positive"):
        philox.beta(0, 0.0, 0, 0, "mixup_lambda")


def test_permutations_stay_in_their_groups_and_do_not_depend_on_the_world_size():
    whole = philox.permutation(4, 256, 9, "mixup_partner", group=64)
    assert sorted(whole) == list(range(256))
    assert (whole // 64 == np.arange(256) // 64).all()
    for rank in range(4):
        group = philox.permutation(4, 64, 9, "mixup_partner", group=64, start=64 * rank)
        assert (group + 64 * rank == whole[64 * rank : 64 * rank + 64]).all()
    assert (philox.permutation(4, 256, 10, "mixup_partner", group=64) != whole).any()


def test_permutations_are_even():
    counts = np.zeros((5, 5))
    for step in range(4000):
        counts[np.arange(5), philox.permutation(0, 5, step, "order")] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.0, 0.3, 3.0, 60.0, 500.0])
def test_poisson_follows_its_distribution(rate):
    table = philox.poisson_table([rate])
    w = philox.words(6, np.arange(20000), 0, 0, "flip").ravel()
    drawn = philox.poisson(w, np.zeros(w.shape, int), table)
    if rate == 0:
        assert (drawn == 0).all()
        return
    edges = stats.poisson(rate).ppf(np.linspace(0.05, 0.95, 19)).astype(int)
    edges = np.unique(edges)
    expected = np.diff(np.concatenate(([0], stats.poisson(rate).cdf(edges), [1]))) * len(drawn)
    seen = np.histogram(drawn, np.concatenate(([-1], edges, [10**6])) + 0.5)[0]
    kept = expected > 5
    assert stats.chisquare(seen[kept], expected[kept] * seen[kept].sum() / expected[kept].sum()).pvalue > 1e-3


def test_poisson_refuses_rates_it_cannot_resolve():
    with pytest.raises(ValueError, match="give rates from 0 to 500"):
        philox.poisson_table([501.0])


def test_a_beta_draw_rejects_both_gammas_together(monkeypatch):
    """A few rounds of words for any batch: each round is a hundred calls of numpy."""
    calls = []
    words = philox.words
    monkeypatch.setattr(philox, "words", lambda *given: calls.append(given[1].size) or words(*given))
    drawn = philox.beta(3, 0.3, np.arange(256), 5, "mix_choice")
    assert calls[0] == 512
    assert len(calls) <= 4  # an attempt is rejected with a probability below 0.05
    alone = np.array([philox.beta(3, 0.3, sample, 5, "mix_choice") for sample in range(256)])
    np.testing.assert_array_equal(drawn, alone)


@pytest.mark.parametrize("draw", [philox.normal, philox.uniform])
def test_compiled_fields_have_the_bits_of_numpy(draw):
    samples = np.array([0, 7, -1, 2**31 + 3, 5 + (2 << philox.OCCURRENCE), 9 + (1 << philox.VIEW)])
    for seed, step, count in ((0, 0, 6000), (2**63 + 5, np.arange(6), 5999), (-3, 2**32 - 1, 8192)):
        place = (seed, samples, count, step, "gaussian_noise")
        compiled, plain = philox.field(draw, *place), philox.field_reference(draw, *place)
        assert compiled.size >= philox._COMPILED_FROM
        assert np.array_equal(compiled.view(np.uint32), plain.view(np.uint32))
