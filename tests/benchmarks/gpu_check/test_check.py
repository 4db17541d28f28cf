"""One check: the results that count as failures, and the number of computed references."""

from __future__ import annotations

import pytest
import torch

from fastreg.benchmarks.gpu_check import kernels
from fastreg.benchmarks.gpu_check.check import EXACT, Check, Close, run_check
from fastreg.benchmarks.gpu_check.cuda_graphs import graph_checks

CPU = torch.device("cpu")


def test_a_wrong_value_a_race_and_an_exception_are_failures():
    answers = iter([torch.tensor([0.0, 1.0, 0.0]), torch.zeros(3), torch.zeros(3)])  # the reference comes first
    wrong = Check("wrong", lambda device: (next(answers),), Close(1e-6))
    assert "largest difference 1" in run_check(wrong, CPU)["detail"]
    numbers = iter(range(3))
    racing = Check("racing", lambda device: (torch.full((2,), float(next(numbers))),), Close(9.0))
    assert "a race" in run_check(racing, CPU)["detail"]
    numbers = iter(range(3))
    assert run_check(racing._replace(repeats=False), CPU)["ok"]  # where a library's sums have no order

    calls = iter(range(3))

    def broken(device):
        if next(calls):
            raise RuntimeError("no kernel\nsecond line")
        return (torch.zeros(1),)

    result = run_check(Check("broken", broken, EXACT), CPU)
    assert (result["ok"], result["detail"]) == (False, "RuntimeError: no kernel")
    assert "second line" in result["traceback"]
    assert "in broken" in result["traceback"]


def test_a_nan_in_both_results_is_no_difference_and_in_one_is():
    close = Close(1e-7, relative=1e-7)
    same = Check("nan", lambda device: (torch.tensor([0.5, float("nan")]),), close)
    assert run_check(same, CPU)["ok"]
    answers = iter([torch.tensor([0.5, 0.5]), *[torch.tensor([0.5, float("nan")])] * 2])
    assert not run_check(Check("nan", lambda device: (next(answers),), close), CPU)["ok"]


def test_another_shape_or_dtype_is_a_failure():
    for wanted, dtypes in ((torch.zeros(2), ()), (torch.zeros(1).double(), ()), (torch.zeros(1), (torch.bfloat16,))):
        check = Check("x", lambda device: (torch.zeros(1),), Close(1.0), lambda wanted=wanted: (wanted,), dtypes=dtypes)
        assert "the reference has" in run_check(check, CPU)["detail"]


def test_a_reference_that_lacks_a_package_is_reported_as_not_checked():
    def needs_more(device):
        raise ModuleNotFoundError("No module named 'PIL'")

    result = run_check(Check("jpeg", needs_more, EXACT), CPU)
    assert (result["ok"], result["detail"]) == (True, "not checked: No module named 'PIL'")


def test_checks_of_a_group_share_one_float32_reference():
    calls = []

    def reference():
        calls.append(1)
        return (torch.ones(3),)

    shared: dict = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        check = Check("x", lambda device, d=dtype: (torch.ones(3, dtype=d),), EXACT, reference, "group", (dtype,))
        assert run_check(check, CPU, shared)["ok"]
    assert len(calls) == 1
    run_check(Check("y", lambda device: (torch.ones(3),), EXACT, reference, "other"), CPU, shared)
    assert list(shared) == ["other"]  # one reference is kept in memory


@pytest.mark.parametrize("group", [kernels.augment_checks, kernels.loss_checks])
def test_the_dtypes_of_a_kernel_have_one_reference(group, monkeypatch):
    made = []
    for name in ("_augmented", "_loss"):
        whole = getattr(kernels, name)

        def count(*words, whole=whole):
            made.append(words[-2])
            return whole(*words)

        monkeypatch.setattr(kernels, name, count)
    first = [check for check, _ in zip(group(True), range(3))]
    shared: dict = {}
    for check in first:
        result = run_check(check, CPU, shared)
        assert result["ok"], result
    assert len({check.group for check in first}) == 1
    # two runs in each dtype, and the reference in float32
    assert sorted(map(str, made)) == sorted(
        map(str, [torch.float32, *[torch.float32, torch.float16, torch.bfloat16] * 2])
    )


def test_every_kind_of_kernel_check_passes_on_the_cpu():
    """Every row of the registry, every replay and the first check of each other group, on the CPU."""
    groups = (
        kernels.augment_checks(True),
        kernels.loss_checks(True),
        kernels.attack_checks(),
        kernels.jpeg_checks(True),
        kernels.corruption_checks(True),
    )
    for check in (*kernels.registry_checks(), *graph_checks(), *(next(iter(group)) for group in groups)):
        result = run_check(check, CPU)
        assert result["ok"], result


def test_listing_the_checks_computes_nothing(monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("an input was made")

    monkeypatch.setattr(kernels, "image_batch", forbidden)
    monkeypatch.setattr(kernels, "_noise", forbidden)
    monkeypatch.setattr(torch, "randn", forbidden)
    names = [check.name for check in kernels.kernel_checks()]
    assert len(names) == len(set(names)) > 300
