"""``--profile N``: a trace of N steps and the operations that dominate them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

WARM_UP = 3  # steps before the traced ones


@contextmanager
def profiling(steps: int, folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Yield a function to call after every step of a run: trace.json holds ``steps`` of them, the first few left out.

    A run that ends before says how many it traced. Where epochs are short, the validations between are traced too.
    """
    target = folder / "trace.json"
    if steps and target.exists():
        say(f"no trace: {target} is there already; remove it to have another")
    if not steps or target.exists():
        yield lambda: None
        return
    done = 0

    def finish(profiler: torch.profiler.profile) -> None:
        profiler.export_chrome_trace(str(target))
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        say(profiler.key_averages().table(sort_by=key, row_limit=10, max_name_column_width=60))

    schedule = torch.profiler.schedule(wait=0, warmup=WARM_UP, active=steps, repeat=1)
    with torch.profiler.profile(schedule=schedule, on_trace_ready=finish) as profiler:

        def step() -> None:
            nonlocal done
            done += 1
            profiler.step()
            if done == WARM_UP + steps:
                say(f"trace of {steps} steps: {target} (open it in chrome://tracing or Perfetto)")

        yield step
    if done < WARM_UP + steps:
        kept = max(done - WARM_UP, 0)
        where = f": {target}" if kept else f" behind the {WARM_UP} of the warm-up"
        say(f"the run ended before its {steps} steps to trace: {kept} traced{where}")
