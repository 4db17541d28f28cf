"""Host buffers that are reused, and their copies to the device on a side stream."""

from __future__ import annotations

import sys

import numpy as np
import torch

from fastreg.kernels import philox
from fastreg.kernels.types import Batch

SLOTS = 5  # batches that are being decoded, copied or consumed
# Buffers begin at a memory page, like stored canvases. A copy whose source and target are 16 bytes apart modulo 4096
# takes 27 us for 256 x 256 instead of 10, because its loads seem to depend on its stores (AMD EPYC).
PAGE = 4096
# reference count of an item during a scan of the only list that contains it
_IDLE = next(sys.getrefcount(memory) for memory in [np.empty(0)])


class Staging:
    """Host buffers and device copies of one loader.

    On CUDA it holds a ring of pinned buffers and one copy stream. On the CPU batches are the buffers themselves; a
    buffer is reused when no other reference to it exists.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._host: list[np.ndarray] = []
        self._ring: list[tuple[torch.Tensor, torch.cuda.Event]] = []
        self._next = 0
        self._stream: torch.cuda.Stream | None = None

    def buffer(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A uint8 host tensor to decode into; on CUDA it is pinned, and reused when its copy has finished."""
        size = int(np.prod(shape))
        if self.device.type != "cuda":
            idle = [memory for memory in self._host if sys.getrefcount(memory) <= _IDLE and memory.size >= size + PAGE]
            array = idle[0] if idle else np.empty(size + PAGE, np.uint8)
            if not idle:
                self._host = [*self._host[1 - SLOTS :], array]
            start = -array.ctypes.data % PAGE
            return torch.from_numpy(array[start : start + size].reshape(shape))
        slot, self._next = self._next, (self._next + 1) % SLOTS
        if slot == len(self._ring):
            self._ring.append((torch.empty(size, dtype=torch.uint8, pin_memory=True), torch.cuda.Event()))
        memory, copied = self._ring[slot]
        copied.synchronize()
        if memory.numel() < size:
            memory = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            self._ring[slot] = memory, copied
        return memory[:size].view(shape)

    def batch(self, images: torch.Tensor, labels: np.ndarray, keys: np.ndarray, boxes: np.ndarray | None) -> Batch:
        """The Batch on the device; the host never waits for the copy."""
        indices, occurrences = (torch.from_numpy(half) for half in philox.split_keys(keys))
        numbers = occurrences if occurrences.any() else None
        host = [torch.from_numpy(labels), indices]
        if boxes is not None:
            host.append(torch.from_numpy(boxes.astype(np.float32)))
        if self.device.type != "cuda":
            return Batch(images, host[0], host[1], host[2] if boxes is not None else None, numbers)
        host = [tensor.pin_memory() for tensor in host]
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)
        here = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            moved = [None if t is None else t.to(self.device, non_blocking=True) for t in (images, host[0], *host[2:])]
            for memory, copied in self._ring:
                if memory.untyped_storage().data_ptr() == images.untyped_storage().data_ptr():
                    copied.record(self._stream)
        here.wait_stream(self._stream)
        for tensor in moved:
            tensor.record_stream(here)
        return Batch(moved[0], moved[1], host[1], moved[2] if boxes is not None else None, numbers)

    def close(self) -> None:
        self._host, self._ring, self._next = [], [], 0
