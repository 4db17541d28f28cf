"""One case of a suite: its variants tried, timed together and turned into rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from fastreg.benchmarks.options import Job
from fastreg.benchmarks.record import COPY, FAILED, Absent, Row
from fastreg.benchmarks.timing import Call, host_us, launches, measure


def working(name: str, variants: dict[str, Call]) -> Iterator[Absent]:
    """Call each variant once; one that raises is taken out and named, so that it cannot end the whole suite."""
    for variant, call in list(variants.items()):
        try:
            call(0)
        except Exception as error:  # a peer on a machine that it does not fit, or a kernel that does not run
            del variants[variant]
            why = (str(error).strip().splitlines() or [""])[0][:200]
            yield Absent(name, variant, f"{FAILED} {type(error).__name__}: {why}")


def timed(
    job: Job,
    name: str,
    variants: dict[str, Call],
    *,
    sets: int,
    images: int,
    moved: int,
    seconds: float = 2.0,
    eager: Collection[str] = (),
) -> Iterator[Row | Absent]:
    """Rows of one case, its variants interleaved; on a GPU with the launches and the host's share of an eager call.

    ``eager`` names variants that would break a graph capture, because they wait for the device.
    """
    yield from working(name, variants)
    timings = measure(variants, job.device, sets=sets, seconds=job.seconds(seconds), eager=eager) if variants else {}
    limit = timings[COPY].us if COPY in timings else 0.0
    for variant, timing in timings.items():
        more: dict[str, Any] = {}
        if timing.how == "graph":
            call = variants[variant]
            more = {"launches": launches(call), "host_us": round(host_us(call, sets), 2)}
        yield Row.of(name, variant, timing, images=images, bytes=moved, limit_us=limit, more=more)
