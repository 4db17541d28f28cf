"""The compiled CPU route: equal to the references, and sound beside threads, forks and other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastreg.kernels import Plan, augment, dispatch, fgsm_step, mixed_binary_cross_entropy, mixed_cross_entropy
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


def check_close(ours: torch.Tensor, reference: torch.Tensor, share: float) -> None:
    """The largest difference is at most a share of the largest value."""
    assert (ours.shape, ours.dtype, ours.stride()) == (reference.shape, reference.dtype, reference.stride())
    assert torch.equal(ours.isnan(), reference.isnan())
    if reference.numel():
        worst, largest = (x.abs().nan_to_num(0).max().item() for x in (ours.double() - reference.double(), reference))
        print(f"largest difference {worst:.2e}, largest value {largest:.2e}")
        assert worst <= share * largest


@pytest.mark.parametrize("op", COMPILED, ids=lambda op: op.name)
def test_route_agrees_with_the_reference(op, monkeypatch):
    arguments = op.example("cpu", small=True)
    ours = op.compiled(**arguments)
    monkeypatch.setattr(dispatch, "numba_error", lambda: "missing")
    reference = op.compiled(**arguments)  # the same public function
    pairs = zip(ours, reference, strict=True) if isinstance(ours, tuple) else [(ours, reference)]
    for a, b in pairs:
        check_close(a, b, op.compiled_tolerance)


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_full_disk_keeps_no_code_and_ends_nothing(tmp_path):
    code = (
        "import numba.core.caching as c\n"
        "def full(*given): raise OSError(28, 'No space left on device')\n"
        "c.IndexDataCacheFile.save = full\n"
    )
    out, _ = results_of(child(code + ONE_STEP, NUMBA_CACHE_DIR=str(tmp_path)))
    assert out[1:] == ["0.625", "1.0", "0.0", "0.25"]
    assert not list(tmp_path.rglob("*.nbi"))


@pytest.mark.slow
def test_code_of_other_sources_is_not_loaded(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    results_of(child(**cache))
    other = "import fastreg.kernels.compiled as c\nc._sources = lambda: 'of a kernel that another one inlines'\n"
    for code, compiles in ((ONE_STEP, False), (other + ONE_STEP, True)):
        _, log = results_of(child(code, **cache))
        assert ("compiling CPU kernels" in log) == compiles


def test_the_reference_runs_where_numba_compiles_nothing():
    out, _ = results_of(child(NUMBA_DISABLE_JIT="1"))
    assert out == ["True", "0.625", "1.0", "0.0", "0.25"]


def test_a_compiled_step_refuses_a_partner_outside_the_batch():
    """The kernel reads it without bounds."""
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    plan = Plan(partner=torch.tensor([1, 10**7]), lam=torch.tensor([0.5, 0.5]))
    call = torch.compile(
        lambda x: augment(x, plan, mean=(0.0,) * 3, std=(1.0,) * 3, dtype=torch.float32), backend="eager"
    )
    with pytest.raises(ValueError, match=r"plan\.partner"):
        call(images)


CORNERS = {
    "no samples": (0, {}),
    "one sample": (1, {}),
    "no rows of the box": (3, {"box": [[9, 9, 2, 2], [-5, -5, 0, 0], [99, 0, 120, 50]], "box_fill": [1, 2, 0]}),
    "a box over the image": (3, {"box": [[-9, -9, 99, 99]] * 3, "box_fill": [1, 2, 0]}),
    "whole and no weights": (3, {"lam": [0.0, 1.0, 0.5]}),
    "crops outside the image": (3, {"crop": [[-9, -9, 40, 40], [30, 30, 1, 1], [-50, 0, 20, 20]]}),
    "crops of less than a pixel": (3, {"crop": [[3.25, 4.5, 0.5, 0.01], [0, 0, 21, 1], [1.5, 2.5, 18.1, 3.3]]}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", CORNERS)
def test_augment_in_every_dtype_at_corners_and_on_two_threads(case, dtype, two_threads, monkeypatch):
    count, fields = CORNERS[case]
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 21, 34, 3), generator=generator, dtype=torch.uint8)
    plan = Plan(
        flip=torch.tensor([True, False, True])[:count],
        partner=torch.arange(count).flip(0),
        lam=torch.tensor(fields.get("lam", [0.3, 0.5, 1.0])[:count]),
        noise=torch.tensor([0.0, 0.1, 2.0])[:count],
        box=torch.tensor(fields.get("box", [[2, 3, 9, 9]] * 3)[:count], dtype=torch.int32).reshape(count, 4),
        box_fill=torch.tensor(fields.get("box_fill", [0, 1, 2])[:count], dtype=torch.int8),
        crop=None if "crop" not in fields else torch.tensor(fields["crop"], dtype=torch.float32),
    )
    run = partial(augment, images, plan, mean=(0.485, 0.456, 0.406), std=(0.2, 0.3, 0.4), dtype=dtype, size=(19, 30))
    ours = run()
    monkeypatch.setattr(dispatch, "numba_error", lambda: "missing")
    assert torch.equal(ours, run())
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_bytes_become_unit_values_as_by_division():
    from fastreg.kernels.augmentation.cpu import unit

    assert [unit(np.uint8(v)) for v in range(256)] == (torch.arange(256.0) / 255).tolist()


def test_half_precision_is_rounded_as_by_torch():
    from fastreg.kernels.compiled import as_array, to_bfloat16, to_float16

    exponents = torch.arange(-28.0, 18.0).exp2()
    ties = (1 + torch.arange(64) / 2**12) * exponents[:, None]
    values = torch.cat([ties.flatten(), torch.tensor([0.0, torch.inf, torch.nan, 65519.996, 65520.0, 3e38])])
    values = torch.cat([values, -values])
    for dtype, convert in ((torch.bfloat16, to_bfloat16), (torch.float16, to_float16)):
        out = torch.empty(len(values), dtype=dtype)
        convert(as_array(out), np.uint64(0), as_array(values), len(values))
        assert torch.equal(out.nan_to_num(7), values.to(dtype).nan_to_num(7))
        assert torch.equal(out.isnan(), values.isnan())


def test_strided_arguments(monkeypatch):
    images, grad = step(8)
    images, grad = images.permute(0, 2, 3, 1), torch.cat((grad, grad), 3)[..., ::2].permute(0, 2, 3, 1)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 20, dtype=torch.float64, generator=generator)[:, ::2]
    labels = torch.arange(12)[::2] % 10
    weights = torch.rand(20, generator=generator)[::2]

    def results():
        z = logits.detach().requires_grad_()
        loss = mixed_cross_entropy(z, labels, 0.1, "none", class_weight=weights)
        loss = loss.sum() + mixed_binary_cross_entropy(z, labels, reduction="none").sum()  # an expanded gradient
        loss.backward()
        return fgsm_step(images, grad.half(), EPSILON), loss.detach(), z.grad

    ours = results()
    monkeypatch.setattr(dispatch, "numba_error", lambda: "missing")
    for a, b, share in zip(ours, results(), (0, 1e-6, 1e-6), strict=True):
        check_close(a, b, share)


@pytest.mark.parametrize("rows", [0, 1, 2, 131])
def test_losses_of_any_number_of_rows(rows):
    """Within 1e-6 of float64, which the reference is not always: both round log-sum-exp to float32."""
    generator = torch.Generator().manual_seed(rows)
    z, q = torch.randn(rows, 1000, generator=generator), torch.rand(rows, 1000, generator=generator)
    for reduction in ("none", "sum", "mean"):
        ours, exact = z.clone().requires_grad_(), z.double().requires_grad_()
        loss = mixed_cross_entropy(ours, q, 0.1, reduction)
        truth = F.cross_entropy(exact, q.double(), label_smoothing=0.1, reduction=reduction)
        loss.sum().backward()
        truth.sum().backward()
        check_close(loss.detach().double(), truth.detach(), 1e-6)
        check_close(ours.grad.double(), exact.grad, 1e-6)
