"""Setting ``profile``: a trace of some training steps, and a table of the operations that take most of their time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fastreg.log import log

WARM_UP = 3  # steps before the traced ones


@contextmanager
def profiling(steps: int, folder: Path) -> Iterator[Callable[[], None]]:
    """Trace ``steps`` steps of a run, after a warm-up, into trace.json.

    If epochs are short, the validations between the steps are traced too.

    Args:
        steps: number of steps; 0 traces nothing.
        folder: the run folder.

    Yields:
        A function to call after every step.
    """
    target = folder / "trace.json"
    if steps and target.exists():
        log.info("no trace: %s exists; remove it to trace again", target)
    if not steps or target.exists():
        yield lambda: None
        return
    done = 0

    def finish(profiler: torch.profiler.profile) -> None:
        profiler.export_chrome_trace(str(target))
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        log.info(profiler.key_averages().table(sort_by=key, row_limit=10, max_name_column_width=60))

    schedule = torch.profiler.schedule(wait=0, warmup=WARM_UP, active=steps, repeat=1)
    with torch.profiler.profile(schedule=schedule, on_trace_ready=finish) as profiler:

        def step() -> None:
            nonlocal done
            done += 1
            profiler.step()
            if done == WARM_UP + steps:
                log.info("trace of %d steps: %s (open it in chrome://tracing or Perfetto)", steps, target)

        yield step
    if done < WARM_UP + steps:
        kept = max(done - WARM_UP, 0)
        where = f": {target}" if kept else f", as the first {WARM_UP} are the warm-up"
        log.info("the run ended before its %d steps to trace: %d traced%s", steps, kept, where)
