"""``--profile N``: a trace of N steps and the operations that dominate them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def profiling(steps: int, folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Yield a function to call after every step; after 3 warm-up and ``steps`` traced ones, trace.json is written."""
    target = folder / "trace.json"
    if not steps or target.exists():
        yield lambda: None
        return

    def finish(profiler: torch.profiler.profile) -> None:
        profiler.export_chrome_trace(str(target))
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        say(profiler.key_averages().table(sort_by=key, row_limit=10, max_name_column_width=60))
        say(f"trace of {steps} steps: {target} (open it in chrome://tracing or Perfetto)")

    schedule = torch.profiler.schedule(wait=0, warmup=3, active=steps, repeat=1)
    with torch.profiler.profile(schedule=schedule, on_trace_ready=finish) as profiler:
        yield profiler.step
