"""exp and log1p of the compiled CPU kernels beside float64."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from fastreg.kernels.vector_math import exp_to_one, log1p_to_one  # noqa: E402


@numba.njit
def exps(x):
    return np.array([exp_to_one(v) for v in x])


@numba.njit
def logs(x):
    return np.array([log1p_to_one(v) for v in x])


def last_places(ours: np.ndarray, exact: np.ndarray) -> float:
    """The largest difference in units of the last place."""
    return float(np.abs((ours - exact) / np.spacing(exact.astype(np.float32))).max())


def test_exp_of_every_size():
    x = -np.concatenate([np.linspace(-1, 87.3, 200_001), np.geomspace(1e-30, 1, 1001)]).astype(np.float32)
    assert last_places(exps(x), np.exp(x.astype(np.float64))) < 2


def test_exp_of_what_no_float_holds():
    x = np.array([0, -88, -1e30, -np.inf, np.nan], np.float32)
    assert np.array_equal(exps(x), np.array([1, 0, 0, 0, np.nan], np.float32), equal_nan=True)


def test_log1p_up_to_one():
    e = np.concatenate([np.linspace(0, 1, 200_001), np.geomspace(1e-38, 1, 2001)]).astype(np.float32)
    assert last_places(logs(e), np.log1p(e.astype(np.float64))) < 3
    assert np.isnan(logs(np.array([np.nan], np.float32))[0])
