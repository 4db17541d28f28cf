"""One case of a suite: try its variants, time them together, turn them into rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.record import COPY, FAILED, Absent, Row
from fastreg.benchmarks.timing import Call, Timing, host_us, launches, measure

Found = Iterable[Row | Absent]


class Case(NamedTuple):
    """One case of a suite. ``rows()`` builds the inputs, measures, and yields each row as soon as it is measured."""

    name: str
    rows: Callable[[], Found]


def absent(name: str, variant: str, reason: str) -> Case:
    """A case that does not run here."""
    return Case(name, lambda: [Absent(name, variant, reason)])


def failed(name: str, variant: str, error: BaseException) -> Absent:
    """A variant that raised: the error's type and the first line of its message."""
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return Absent(name, variant, f"{FAILED} {type(error).__name__}: {first}")


def remove_failing(name: str, variants: dict[str, Call]) -> Iterator[Absent]:
    """Call each variant once; remove one that raises, so that it does not end the suite."""
    for variant, call in list(variants.items()):
        try:
            call(0)
        except Exception as error:  # a peer that does not fit the machine, or a kernel that does not run
            if is_cuda_error(repr(error)):
                raise
            del variants[variant]
            yield failed(name, variant, error)


_STICKY = ("illegal memory access", "device-side assert", "misaligned address", "launch failure", "illegal instruction")


def is_cuda_error(text: str) -> bool:
    """Whether an error's text names a CUDA error, after which every later call of the process fails."""
    return any(words in text.lower() for words in _STICKY)


def timed(
    options: BenchmarkOptions,
    name: str,
    variants: dict[str, Call],
    *,
    sets: int,
    images: int,
    moved: int,
    seconds: float = 2.0,
    eager: Collection[str] = (),
) -> Iterator[Row | Absent]:
    """Rows of one case, its variants interleaved.

    On a GPU a captured variant also gets the host time of an eager call. Its launches are counted later by
    :func:`with_launches`.

    Args:
        options: the benchmark's options.
        name: the operation, as in the record.
        variants: calls by variant; one that raises becomes an :class:`Absent`.
        sets: number of buffer sets.
        images: images in one call.
        moved: bytes that one call must move at least.
        seconds: time budget at full scope.
        eager: variants that would break a graph capture, because they wait for the device.
    """
    yield from remove_failing(name, variants)
    if not variants:
        return
    timings = measure(variants, options.device, sets=sets, seconds=options.seconds(seconds), eager=eager)
    limit = timings[COPY].us if COPY in timings else 0.0
    for variant, timing in timings.items():
        more: dict[str, Any] = {}
        if timing.how == "graph":
            more["host_us"] = round(host_us(variants[variant], sets), 2)
        row = Row.of(name, variant, timing, images=images, bytes=moved, limit_us=limit, more=more)
        if timing.how == "graph":
            options.uncounted.append((row, variants[variant]))
        yield row


def with_launches(options: BenchmarkOptions) -> Iterator[Row]:
    """The captured rows again, with the number of kernels that a call launches. Run it after all timing."""
    while options.uncounted:
        row, call = options.uncounted.pop(0)
        yield replace(row, more={**row.more, "launches": launches(call)})


def timed_beside(
    options: BenchmarkOptions,
    name: str,
    variants: dict[str, Call],
    base: tuple[str, Call],
    *,
    sets: int,
    images: int,
    seconds: float,
    sample_seconds: float,
    captured: Collection[str] = (),
) -> Iterator[Row | Absent]:
    """Rows of one case whose variants take turns with a base call.

    Each row keeps the base's time from the same rounds (``more["beside"]``, ``more["beside_us"]``), so a ratio to the
    base does not depend on clocks that changed between two cases.

    Args:
        options: the benchmark's options.
        name: the operation, as in the record.
        variants: calls by variant; one that raises becomes an :class:`Absent`.
        base: ``(key, call)``; the key is "operation / variant", as a target names it.
        sets: number of buffer sets.
        images: images in one call.
        seconds: time budget at full scope, for each call.
        sample_seconds: length of one sample on a GPU.
        captured: variants, or the base's key, that may be captured into a graph; all others run eagerly.
    """
    key, call = base
    yield from remove_failing(name, variants)
    if not variants:
        return
    timings: dict[str, Timing] = measure(
        {**variants, key: call},
        options.device,
        sets=sets,
        seconds=options.seconds(seconds) * (len(variants) + 1),
        eager={*variants, key} - set(captured),
        sample_seconds=sample_seconds,
    )
    beside = {"beside": key, "beside_us": float(f"{timings[key].us:.5g}")}
    for variant in variants:
        yield Row.of(name, variant, timings[variant], images=images, more=beside)
