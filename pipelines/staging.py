"""From host buffers to the step's device: buffers reused for life, copies on a side stream."""

from __future__ import annotations

import sys

import numpy as np
import torch

from fastreg.kernels.types import Batch

SLOTS = 5  # batches being decoded, being copied, and in the consumer's hands
# Buffers begin where a page does, as stored canvases do: a copy whose ends lie 16 bytes apart modulo 4096 takes
# 27 us for 256 x 256 instead of 10, because its loads seem to depend on its stores (AMD EPYC).
PAGE = 4096
_IDLE = next(sys.getrefcount(memory) for memory in [np.empty(0)])  # references that a scan of a list sees to each item


class Staging:
    """On CUDA: a ring of pinned buffers and one copy stream. On the CPU batches are the buffers themselves; one is used
    again once nobody holds it."""

    def __init__(self, device: torch.device):
        self.device = device
        self._host: list[np.ndarray] = []
        self._ring: list[tuple[torch.Tensor, torch.cuda.Event]] = []
        self._next = 0
        self._stream: torch.cuda.Stream | None = None

    def buffer(self, shape: tuple[int, ...]) -> torch.Tensor:
        """uint8 host tensor to decode into; on CUDA pinned, and free again once its copy has left."""
        size = int(np.prod(shape))
        if self.device.type != "cuda":
            idle = [memory for memory in self._host if sys.getrefcount(memory) <= _IDLE and memory.size >= size + PAGE]
            own = idle[0] if idle else np.empty(size + PAGE, np.uint8)
            if not idle:
                self._host = [*self._host[1 - SLOTS :], own]
            start = -own.ctypes.data % PAGE
            return torch.from_numpy(own[start : start + size].reshape(shape))
        slot, self._next = self._next, (self._next + 1) % SLOTS
        if slot == len(self._ring):
            self._ring.append((torch.empty(size, dtype=torch.uint8, pin_memory=True), torch.cuda.Event()))
        memory, copied = self._ring[slot]
        copied.synchronize()
        if memory.numel() < size:
            memory = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            self._ring[slot] = memory, copied
        return memory[:size].view(shape)

    def batch(self, images: torch.Tensor, labels: np.ndarray, indices: np.ndarray, boxes: np.ndarray | None) -> Batch:
        """The Batch on the device; never waits for it."""
        host = [torch.from_numpy(labels), torch.from_numpy(np.ascontiguousarray(indices))]
        if boxes is not None:
            host.append(torch.from_numpy(boxes.astype(np.float32)))
        if self.device.type != "cuda":
            return Batch(images, host[0], host[1], host[2] if boxes is not None else None)
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
        return Batch(moved[0], moved[1], host[1], moved[2] if boxes is not None else None)

    def close(self) -> None:
        self._host, self._ring, self._next = [], [], 0
