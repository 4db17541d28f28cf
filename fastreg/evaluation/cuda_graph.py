"""A model's forward pass as one CUDA graph: the host then launches one thing for a batch instead of some hundreds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
CLOSE = 2.0**-5  # of the largest output: an algorithm chosen anew rounds differently, a wrong replay is far off


def capture(function: Function, x: Tensor) -> tuple[Callable[[], None], Tensor]:
    """``(replay, its output)`` of a CUDA graph of ``function(x)``; raises whatever keeps it from being captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries choose their algorithms before the capture
        for _ in range(3):
            function(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # a loader's threads may pin memory meanwhile
        output = function(x)
    return graph.replay, output


class CudaGraphForward:
    """``function`` of a batch, captured at the first batch of ``batch_size`` and replayed for all others of its shape.

    Where it cannot be captured (it waits for the device, memory is short), or where a replay on another batch does not
    give what a call gives, every batch is a call: ``refused`` says why. Runs without gradients.
    """

    def __init__(self, function: Function, batch_size: int, make: Callable = capture):
        self.function, self.batch_size, self.make = function, batch_size, make
        self.input: Tensor | None = None
        self.refused = ""

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            if self.input is None and not self.refused and len(x) == self.batch_size:
                self._try(x)
            if self.input is None or x.shape != self.input.shape:
                return self.function(x)
            self.input.copy_(x)
            self.replay()
            return self.output.clone()  # the next replay writes there

    def _try(self, x: Tensor) -> None:
        try:
            held, other = x.clone(), -x
            self.replay, self.output = self.make(self.function, held)
            held.copy_(other)
            self.replay()
            wanted = self.function(other)
            limit = CLOSE * wanted.nan_to_num().abs().max()
            if not torch.allclose(self.output, wanted, rtol=0.0, atol=float(limit), equal_nan=True):
                raise RuntimeError("a replay differs from a call")
            self.input = held
        except Exception as error:  # a model may do anything; a call is always right
            self.refused = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            if x.is_cuda:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
