"""Faults of the GPU routes that were once found, put back one at a time into a copy of the code: a test must fail.

None of them shows on a CPU. In the normal run the edits are only looked up, so that they follow the code.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import ROOT, environment


class Fault(NamedTuple):
    """``old`` is replaced by ``new`` in ``file``; ``test`` must then fail."""

    about: str
    file: str
    old: str
    new: str
    test: str


HERE = "tests/simulated_gpu"
FAULTS = (
    Fault(
        "a GPU is made the current one without its index",
        "fastreg/distributed.py",
        'if device.type == "cuda" and device.index is not None:\n        torch',
        'if device.type == "cuda":\n        torch',
        f"{HERE}/test_evaluation.py::test_corrupted_images[cifar-c-32]",
    ),
    Fault(
        "the normalization around an attacked model stays on the host",
        "fastreg/training/train_step.py",
        "Normalized(self.net, mean, std).to(world.device)",
        "Normalized(self.net, mean, std)",
        f"{HERE}/test_train_steps.py::test_a_step[adversarial-bf16]",
    ),
    Fault(
        "every target in images per second names one card, and another card is judged by nothing",
        "benchmarks/targets.py",
        'return self.device in machine["name"]',
        'return self.device == H200 and H200 in machine["name"]',
        "tests/benchmarks/test_compare.py::test_ratios_and_launches_hold_on_any_gpu_and_absolute_figures_on_one_card",
    ),
    Fault(
        "kernels are compiled once by every worker",
        "benchmarks/gpu_check/compile_all.py",
        "min((lists[n] for n in workers), key=len).append(key)",
        "[lists[n].append(key) for n in workers]",
        "tests/benchmarks/gpu_check/test_cache.py::test_the_workers_share_the_specializations",
    ),
    Fault(
        "after an illegal access the process goes on, and every later check fails",
        "benchmarks/cases.py",
        "if is_cuda_error(repr(error)):\n                raise",
        "if False:\n                raise",
        "tests/benchmarks/test_cases.py::test_a_cuda_error_is_not_taken_for_a_failing_variant",
    ),
    Fault(
        "a failed check keeps one line of its traceback",
        "benchmarks/gpu_check/check.py",
        '"".join(traceback.format_exception(error)) if error is not None else ""',
        "str(error).splitlines()[0] if error is not None else ''",
        "tests/benchmarks/gpu_check/test_pool.py::test_a_failure_keeps_its_whole_traceback",
    ),
    Fault(
        "a failed capture leaves its stream current",
        "fastreg/cuda_graphs.py",
        "    finally:\n        torch.cuda.set_stream(before)",
        "    finally:\n        pass",
        f"{HERE}/test_streams.py::test_a_call_that_waits_cannot_be_captured",
    ),
    Fault(
        "a failed capture leaves the allocator in the capture",
        "fastreg/cuda_graphs.py",
        "    except BaseException:\n        _free(pool)\n        raise",
        "    except BaseException:\n        raise",
        "tests/fastreg/test_cuda_graphs.py",
    ),
    Fault(
        "a peer makes its constants from Python numbers in each call",
        "benchmarks/peers/kernels.py",
        "    mean, std = stats\n    x = images",
        "    mean, std = (torch.as_tensor(s.flatten().tolist()).view(1, 3, 1, 1) for s in stats)\n    x = images",
        "tests/benchmarks/peers/test_constants.py::test_plain_augment",
    ),
    Fault(
        "launches are counted by the profiler before the host time is measured",
        "benchmarks/cases.py",
        "            options.uncounted.append((row, variants[variant]))\n",
        "            launches(variants[variant])\n            options.uncounted.append((row, variants[variant]))\n",
        "tests/benchmarks/test_cases.py::test_host_time_comes_before_any_profiler",
    ),
    Fault(
        "the rows of a suite are kept until its end",
        "benchmarks/runner.py",
        "            absent.append(found)\n        write()\n",
        "            absent.append(found)\n",
        "tests/benchmarks/test_runner.py::test_each_row_is_written_before_the_next_is_measured",
    ),
    Fault(
        "the average copies the counters of batch norm one by one",
        "fastreg/training/train_step.py",
        "torch._foreach_copy_([a for a, _ in counts], [b for _, b in counts])",
        "[a.copy_(b) for a, b in counts]",
        "tests/fastreg/training/test_launches.py::test_the_average_takes_one_operation_for_each_kind_of_tensor",
    ),
    Fault(
        "the random start launches a grid of any height",
        "kernels/attacks/kernels.py",
        "LARGEST_GRID = 65_535",
        "LARGEST_GRID = 2**31",
        f"{HERE}/test_grids.py::test_more_samples_than_a_grid_counts[random_start]",
    ),
    # the order of streams, the reuse of memory, and waits
    Fault(
        "a batch is used before its copy has ended",
        "pipelines/staging.py",
        "        here.wait_stream(self._stream)\n",
        "",
        f"{HERE}/test_loaders.py::test_a_loader[folder-images-train]",
    ),
    Fault(
        "a batch's memory is released on the stream of the copy",
        "pipelines/staging.py",
        "            tensor.record_stream(here)\n",
        "            pass\n",
        f"{HERE}/test_loaders.py::test_a_loader[folder-images-train]",
    ),
    Fault(
        "a pinned buffer is filled while it is copied",
        "pipelines/staging.py",
        "        copied.synchronize()\n",
        "",
        f"{HERE}/test_loaders.py::test_a_loader[folder-images-train]",
    ),
    Fault(
        "encoded images are freed while DALI reads them",
        "pipelines/decode_dali.py",
        "deque(maxlen=2 * DEPTH)",
        "deque(maxlen=1)",
        f"{HERE}/test_loaders.py::test_a_loader[dali-images-train]",
    ),
    Fault(
        "losses are read before their copy has ended",
        "fastreg/training/loss_log.py",
        "                event.synchronize()\n",
        "                pass\n",
        f"{HERE}/test_streams.py::test_losses_are_read_one_interval_later",
    ),
    Fault(
        "a plan is copied from memory that is not pinned",
        "fastreg/methods/base.py",
        'pin_memory=device.type == "cuda"',
        "pin_memory=False",
        f"{HERE}/test_train_steps.py::test_a_step[mixup+cutmix-bf16]",
    ),
    Fault(
        "a step reads its loss",
        "fastreg/training/train_step.py",
        "        self.batchnorm.end(micro)\n        return loss",
        "        self.batchnorm.end(micro)\n        loss.item()\n        return loss",
        f"{HERE}/test_train_steps.py::test_a_step[mixup+cutmix-bf16]",
    ),
)


def read(fault: Fault) -> str:
    return (ROOT / fault.file).read_text()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.about)
def test_each_fault_can_be_put_back(fault):
    assert read(fault).count(fault.old) == 1
    assert (ROOT / fault.test.split("::")[0]).is_file()


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the checkout's code and tests."""
    to = tmp_path_factory.mktemp("copy")
    for name in ("kernels", "pipelines", "fastreg", "cli", "benchmarks", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, to / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def run(copy: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "pytest", *tests, "-q", "-x", "-p", "no:cacheprovider", "-m", ""]
    return subprocess.run(words, cwd=copy, env=environment(PYTHONPATH=str(copy)), capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tests_pass_without_the_faults(copy):
    done = run(copy, *dict.fromkeys(fault.test for fault in FAULTS))
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.about)
def test_each_fault_fails_a_test(fault, copy):
    path = copy / fault.file
    whole = path.read_text()
    path.write_text(whole.replace(fault.old, fault.new))
    try:
        done = run(copy, fault.test)
    finally:
        path.write_text(whole)
    assert done.returncode == 1, done.stdout  # 1: a test failed; not 2 to 5: nothing was collected
    assert " failed" in done.stdout or " error" in done.stdout
