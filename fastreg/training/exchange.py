"""Small sums over all processes that the host reads later, so that no step waits for the device or for another host."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from fastreg.training.setup import World


class Exchange:
    """``send`` starts a sum, ``arrived`` gives what the host may read without waiting for the step in flight."""

    def __init__(self, place: World):
        self.place = place
        self.travelling: list[tuple[torch.Tensor, Any, Any]] = []

    def send(self, values: torch.Tensor, about: Any = None) -> None:
        """Sum ``values`` (on the device; overwritten) over all processes; ``about`` comes back beside the sums."""
        if self.place.size > 1:
            dist.all_reduce(values)
        host, event = values, None
        if values.is_cuda:
            host = torch.empty(values.shape, pin_memory=True)
            host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self.travelling.append((host, event, about))

    def arrived(self, wait: bool = False) -> list[tuple[list[float], Any]]:
        """``(sums, about)`` in the order sent; from a GPU all but the newest, which comes once another is sent behind
        it, or with ``wait``. Alike on all processes, whoever is ahead."""
        keep = 0 if wait or self.place.device.type != "cuda" else 1
        count = max(len(self.travelling) - keep, 0)
        ready, self.travelling = self.travelling[:count], self.travelling[count:]
        for _, event, _ in ready:
            if event is not None:
                event.synchronize()
        return [(host.tolist(), about) for host, _, about in ready]
