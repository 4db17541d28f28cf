"""Timing of every benchmark: interleaved variants, warm-up, rotated buffers, medians with quartiles.

A variant is a function of the index of a buffer set. On a GPU its calls are captured into a CUDA graph that walks
through all sets, so the time excludes the host; a variant that cannot be captured runs eagerly between two events. On a
CPU each call is timed with the wall clock. One round takes one sample of each variant in turn, so a change of clocks or
load affects all of them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch

from fastreg.cuda_graphs import capture

Call = Callable[[int], Any]

MIN_ROUNDS, MAX_ROUNDS = 5, 60
FEWEST_ROUNDS = 3  # when MIN_ROUNDS would take three times the budget
GRAPH_CALLS = 20  # least number of calls in one graph: launching a graph costs about ten microseconds
L2_MULTIPLE = 3  # size of all buffer sets together, in L2 caches


class Timing(NamedTuple):
    """Microseconds of one call: median and quartiles over ``runs`` samples; ``how`` is "graph", "events" or "clock"."""

    us: float
    low: float
    high: float
    runs: int
    how: str


class StubClock:
    """Stub for measuring: adds the time that a measurement would take, and runs nothing."""

    overhead = 0.5  # seconds of warm-up and capture of one variant on a GPU

    def __init__(self) -> None:
        self.seconds = 0.0

    def measure(self, variants: Collection[str], seconds: float) -> dict[str, Timing]:
        """A made-up timing of each variant."""
        self.seconds += seconds + self.overhead * len(variants)
        return {name: Timing(1.0, 1.0, 1.0, 1, "stub") for name in variants}


stub: StubClock | None = None  # set by the dry run of the GPU check


def over(function: Callable[..., Any], *stock: Sequence[Any]) -> Call:
    """``function`` as a call on the i-th element of each of ``stock``."""
    return lambda i: function(*(elements[i] for elements in stock))


def buffer_sets(device: torch.device, set_bytes: int) -> int:
    """Number of buffer sets of ``set_bytes`` bytes that exceed three times the L2 cache; 2 on a CPU."""
    if device.type != "cuda":
        return 2
    l2 = torch.cuda.get_device_properties(device).L2_cache_size
    return max(2, min(64, math.ceil(L2_MULTIPLE * l2 / max(set_bytes, 1)) + 1))


def measure(
    variants: dict[str, Call],
    device: torch.device,
    *,
    sets: int = 1,
    seconds: float = 1.0,
    eager: Collection[str] = (),
    sample_seconds: float = 20e-3,
) -> dict[str, Timing]:
    """Time each variant.

    Args:
        variants: calls by name; a call receives the index of its buffer set.
        device: the device on which the calls run.
        sets: number of buffer sets.
        seconds: approximate time for all variants together, after warm-up.
        eager: names of variants that must not be captured into a graph: they wait for the device, or are whole training
            steps.
        sample_seconds: length of one sample of an eager variant on a GPU, as consecutive calls.

    Returns:
        One :class:`Timing` per variant.
    """
    if stub is not None:
        return stub.measure(variants, seconds)
    sample, how = {}, {}
    for name, call in variants.items():
        if device.type == "cuda":
            sample[name], how[name] = _on_gpu(call, sets, name not in eager, sample_seconds)
        else:
            sample[name], how[name] = _on_cpu(call, sets), "clock"
    first = {name: take() for name, take in sample.items()}  # a last warm-up; also the length of a sample
    round_seconds = sum(spent for _, spent in first.values())
    least = MIN_ROUNDS if MIN_ROUNDS * round_seconds <= 3 * seconds else FEWEST_ROUNDS
    rounds = max(least, min(MAX_ROUNDS, int(seconds / max(round_seconds, 1e-9))))
    seen: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, take in sample.items():
            seen[name].append(take()[0])
    return {name: summary(values, how[name]) for name, values in seen.items()}


def summary(values: list[float], how: str = "clock") -> Timing:
    """Median and quartiles of samples in microseconds."""
    if len(values) == 1:
        return Timing(values[0], values[0], values[0], 1, how)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Timing(statistics.median(values), low, high, len(values), how)


def _on_cpu(call: Call, sets: int) -> Callable[[], tuple[float, float]]:
    """A function that takes one sample and returns (microseconds per call, seconds spent)."""
    for i in range(min(sets, 2)):
        call(i)
    start = time.perf_counter()
    call(0)
    once = time.perf_counter() - start
    calls = max(1, min(1000, int(2e-3 / max(once, 1e-9))))  # a sample takes two milliseconds or one call
    turn = 0

    def take() -> tuple[float, float]:
        nonlocal turn
        start = time.perf_counter()
        for _ in range(calls):
            call(turn % sets)
            turn += 1
        spent = time.perf_counter() - start
        return 1e6 * spent / calls, spent

    return take


def _on_gpu(call: Call, sets: int, graph: bool, sample_seconds: float) -> tuple[Callable, str]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(max(3, sets)):
            call(i % sets)
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    calls = sets * math.ceil(GRAPH_CALLS / sets)
    kept: list[Any] = [None] * sets  # outputs stay alive, so consecutive calls write different memory
    replay = _captured(call, sets, calls, kept) if graph else None
    if replay is None:
        start = time.perf_counter()
        call(0)
        torch.cuda.synchronize()
        once = time.perf_counter() - start
        calls = max(1, min(200, int(sample_seconds / max(once, 1e-9)) + 1))
        turn = 0

        def replay_eagerly() -> None:
            nonlocal turn
            for _ in range(calls):
                kept[turn % sets] = call(turn % sets)
                turn += 1

    work = replay or replay_eagerly

    def take() -> tuple[float, float]:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun = time.perf_counter()
        start.record()
        work()
        end.record()
        end.synchronize()
        return 1e3 * start.elapsed_time(end) / calls, time.perf_counter() - begun

    return take, "graph" if replay else "events"


def _captured(call: Call, sets: int, calls: int, kept: list[Any]) -> Callable[[], None] | None:
    """The replay of a graph of ``calls`` calls; None where the calls cannot be captured."""

    def all_calls() -> None:
        for i in range(calls):
            kept[i % sets] = call(i % sets)

    try:
        return capture(all_calls, warm_up=0)[0]
    except Exception:  # the call waits for the device, or allocates in a way that a graph forbids
        kept[:] = [None] * sets
        return None


def host_us(call: Call, sets: int = 1, calls: int = 100) -> float:
    """Microseconds of host time to enqueue one eager call on a GPU. Measure it before any :func:`launches`."""
    best = math.inf
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for i in range(calls):
            call(i % sets)
        best = min(best, (time.perf_counter() - start) / calls)
    torch.cuda.synchronize()
    return 1e6 * best


def launches(call: Call) -> int:
    """Number of kernels that one call launches on the GPU; copies and fills are not kernels.

    The profiler that counts them slows every later call of this process: count after all timing.
    """
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        call(0)
        torch.cuda.synchronize()
    on_device = [e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return sum(not e.name.startswith(("Memcpy", "Memset")) for e in on_device)
