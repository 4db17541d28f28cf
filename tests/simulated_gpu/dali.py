"""A stand-in for DALI's pipeline: outputs are written on DALI's own stream, into memory that it allocates there."""

from __future__ import annotations

import types
import weakref
from collections import deque
from typing import Any

import torch

from tests.simulated_gpu.gpu import DEVICE, Gpu, GpuError, Memory


class Output:
    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def as_tensor(self) -> torch.Tensor:
        return self.images


class Pipeline:
    """``feed_input`` until every input has a batch, ``schedule_run``, ``share_outputs``, ``release_outputs``.

    Encoded images are shared: they must live until as many later batches have run as the queue holds.
    """

    def __init__(self, gpu: Gpu, batch_size: int, prefetch_queue_depth: int, **options: Any) -> None:
        self.gpu, self.max_batch_size, self.depth, self.options = gpu, batch_size, prefetch_queue_depth, options
        self.stream = torch.cuda.Stream()
        self.fed: list[dict[str, Any]] = []
        self.ready: list[torch.Tensor] = []
        self.started = self.shared = False
        self.read: deque[list[weakref.ref]] = deque(maxlen=prefetch_queue_depth + 1)

    def build(self) -> None:
        pass

    def feed_input(self, name: str, values: Any) -> None:
        if not self.fed or name in self.fed[-1]:
            self.fed.append({})
        self.fed[-1][name] = values
        if name == "encoded" and self.started:
            self.read.append([weakref.ref(array) for array in values])

    def schedule_run(self) -> None:
        if any(array() is None for batch in self.read for array in batch):
            raise GpuError("encoded images were freed while DALI may read them")
        for _ in range(1 if self.started else self.depth):  # DALI's first run fills its queue
            given = self.fed.pop(0)
            sides = {tuple(side) for side in (given.get("square", given["resized"])).tolist()}
            if len(sides) != 1:
                raise GpuError(f"images of {sides} in one batch")
            (height, width) = sides.pop()
            with torch.cuda.stream(self.stream):
                shape = len(given["encoded"]), int(height), int(width), 3
                self.ready.append(torch.zeros(shape, dtype=torch.uint8, device=DEVICE))
            self.memory(self.ready[-1]).foreign = True
        self.started = True

    def share_outputs(self, cuda_stream: Any = None) -> tuple[Output]:
        if self.shared:
            raise GpuError("outputs are shared before the last ones were released")
        self.shared, images = True, self.ready.pop(0)
        if cuda_stream is None:
            self.stream.synchronize()
        else:
            cuda_stream.wait_stream(self.stream)
            self.memory(images).recorded.add(cuda_stream.number)  # DALI frees memory in the order of this stream
        return (Output(images),)

    def memory(self, images: torch.Tensor) -> Memory:
        return self.gpu.memory[images.untyped_storage()._cdata]

    def release_outputs(self) -> None:
        if not self.shared:
            raise GpuError("released without outputs")
        self.shared = False


def install(patch: Any, gpu: Gpu) -> list[Pipeline]:
    """Make ``import nvidia.dali`` import the stand-in. Returns the pipelines that are built."""
    made: list[Pipeline] = []

    def pipeline_def(graph: Any) -> Any:
        def build(**options: Any) -> Pipeline:
            graph()
            made.append(Pipeline(gpu, **options))
            return made[-1]

        return build

    class Node:
        def __getitem__(self, at: Any) -> Node:
            return self

    def operator(*given: Any, **options: Any) -> Node:
        return Node()

    decoders = types.SimpleNamespace(image=operator, image_slice=operator)
    functions = types.SimpleNamespace(external_source=operator, decoders=decoders, slice=operator, resize=operator)
    kinds = types.SimpleNamespace(RGB=0, INTERP_LINEAR=1)
    module: Any = types.ModuleType("nvidia.dali")
    module.pipeline_def, module.fn, module.types = pipeline_def, functions, kinds
    package: Any = types.ModuleType("nvidia")
    package.dali = module
    patch.setitem(__import__("sys").modules, "nvidia", package)
    patch.setitem(__import__("sys").modules, "nvidia.dali", module)
    patch.setattr(torch, "from_dlpack", lambda shared: shared)
    return made
