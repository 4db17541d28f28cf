"""The compiled CPU route: equal to the references, and sound beside threads, forks and other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fastreg.kernels import dispatch, fgsm_step
from fastreg.kernels.attacks.reference import fgsm_step_reference
from fastreg.kernels.registry import operations
from tests.support import ROOT, environment

COMPILED = [op for op in operations() if op.compiled]
EPSILON = 8 / 255


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def step(side: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and a gradient, large enough for two threads."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(32, 3, side, side, generator=generator)
    return images, torch.randn(images.shape, generator=generator)


def expected(images: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return fgsm_step_reference(images, grad, EPSILON, True, None, None)


@pytest.mark.parametrize("op", COMPILED, ids=lambda op: op.name)
def test_route_agrees_with_the_reference(op, monkeypatch):
    arguments = op.example("cpu", small=True)
    ours = op.compiled(**arguments)
    monkeypatch.setattr(dispatch, "numba_error", lambda: "missing")
    reference = op.compiled(**arguments)  # the same public function
    pairs = zip(ours, reference, strict=True) if isinstance(ours, tuple) else [(ours, reference)]
    for a, b in pairs:
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())
        assert torch.equal(a.isnan(), b.isnan())
        worst = (a.double() - b.double()).abs().nan_to_num(0).max().item() if a.numel() else 0.0
        print(f"{op.name}: largest difference {worst:.2e}")
        assert worst <= op.compiled_tolerance


def test_slices_on_several_threads_and_calls_from_several_threads(two_threads):
    cases = [step(seed=seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda case: fgsm_step(*case, EPSILON), cases))
    assert all(torch.equal(ours, expected(*case)) for ours, case in zip(results, cases))


def test_a_forked_process_starts_threads_of_its_own(two_threads):
    case = step()
    result = expected(*case).numpy()
    fgsm_step(*case, EPSILON)  # the parent's threads exist
    child = os.fork()
    if child == 0:  # where torch's own threads are gone: compare with numpy
        os._exit(0 if np.array_equal(fgsm_step(*case, EPSILON).numpy(), result) else 1)
    assert os.waitpid(child, 0)[1] == 0


ONE_STEP = (
    "import logging, torch; logging.basicConfig(level=logging.INFO)\n"
    "from fastreg.kernels import fgsm_step\n"
    "from fastreg.kernels.dispatch import numba_error\n"
    "x = torch.tensor([0.5, 0.99, 0.0, 0.25]); g = torch.tensor([1.0, 2.0, -1.0, 0.0])\n"
    "print(bool(numba_error()), *[round(v, 4) for v in fgsm_step(x, g, 0.125).tolist()])\n"
)


def child(code: str = ONE_STEP, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results_of(process: subprocess.Popen[str]) -> tuple[list[str], str]:
    out, log = process.communicate()
    assert process.returncode == 0, log
    return out.split(), log


def test_the_reference_runs_where_numba_is_missing():
    out, log = results_of(child("import sys; sys.modules['numba'] = None\n" + ONE_STEP))
    assert out == ["True", "0.625", "1.0", "0.0", "0.25"]
    assert "compiling" not in log


def test_two_processes_compile_at_once_and_a_third_loads(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    first = [child(**cache), child(**cache)]
    logs = []
    for process in first:
        out, log = results_of(process)
        assert out == ["False", "0.625", "1.0", "0.0", "0.25"]
        logs.append(log)
    assert sum("compiling CPU kernels" in log and str(tmp_path) in log for log in logs) == 1  # the other waited
    out, log = results_of(child(**cache))
    assert out[1:] == ["0.625", "1.0", "0.0", "0.25"]
    assert "compiling" not in log


def test_an_install_that_cannot_be_written_uses_the_users_cache_or_none(tmp_path):
    code = (
        "import numba.core.caching as c\n"
        "def refuse(self): raise PermissionError('read-only')\n"
        "c.InTreeCacheLocator.ensure_cache_path = refuse\n"
    )
    out, log = results_of(child(code + ONE_STEP, XDG_CACHE_HOME=str(tmp_path)))
    assert out[1:] == ["0.625", "1.0", "0.0", "0.25"]
    assert str(tmp_path) in log
    assert list(tmp_path.rglob("*.nbi"))
    code += "c.UserWideCacheLocator.ensure_cache_path = refuse\n"
    out, log = results_of(child(code + ONE_STEP, XDG_CACHE_HOME=str(tmp_path / "none")))
    assert out[1:] == ["0.625", "1.0", "0.0", "0.25"]
    assert "no folder to keep them can be written" in log
