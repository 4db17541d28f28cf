"""Worker processes: a CUDA error or a crash fails its own check only, and a deadline ends running checks."""

from __future__ import annotations

import time

import pytest

from fastreg.benchmarks.gpu_check.pool import Pool, Request

SOURCE = "tests.benchmarks.gpu_check.broken_checks:checks"
NAMES = ["good", "cuda error", "after", "crash", "after the crash", "exception"]
RUN = "fastreg.benchmarks.gpu_check.work:run_checks"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    results: dict[str, dict] = {}
    pool = Pool(1, folder / "crashes.txt")
    first = pool.workers[0].process.pid
    requests = [Request(RUN, [*NAMES, "wait", "last"], (SOURCE, False, "cpu"))]

    def answer(name, result):
        results[name] = result
        if name == "exception":
            timer["deadline"] = time.monotonic() + 1

    timer = {"deadline": time.monotonic() + 200}

    class Deadline(float):
        """Moves once all checks before the endless one are done."""

        def __sub__(self, now):
            return timer["deadline"] - now

    finished = pool.run(requests, answer, Deadline())
    pool.close()
    return results, finished, first, (folder / "crashes.txt").read_text()


def test_a_cuda_error_restarts_the_process_at_the_next_check(outcome):
    results, *_ = outcome
    assert results["good"]["ok"]
    assert results["cuda error"]["restart"]
    assert "illegal memory access" in results["cuda error"]["detail"]
    detail = results["after"]["detail"]  # no CUDA error: it compares, and finds another number
    assert "largest difference" in detail
    assert "illegal" not in detail


def test_a_crash_is_the_result_of_its_own_check(outcome):
    results, _, _, crashes = outcome
    assert "exit code -6" in results["crash"]["crash"]
    assert "_crash" in crashes  # the stack of the process that aborted
    assert results["after the crash"]["ok"]


def test_a_failure_keeps_its_whole_traceback(outcome):
    results, *_ = outcome
    text = results["exception"]["traceback"]
    assert "the cause stands on the second line" in text
    assert text.count("in _deep") == 4


def test_a_deadline_ends_running_requests(outcome):
    results, finished, *_ = outcome
    assert not finished
    assert "wait" not in results
    assert "last" not in results
    assert set(results) == set(NAMES)
