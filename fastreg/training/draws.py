"""The random numbers of training steps, drawn for many micro-batches in one call.

Plans, targets' weights, fields of the model and color factors depend on the seed, the samples, the epoch and the step
only. The order of an epoch is known at its start, so they need not wait for the images.

CPU time of the main thread per step of 256 images (2 cores of a Xeon with AVX-512, Nov 2026, medians of interleaved
runs), one batch at a time and with 8192 samples at once: none 160 and 32 us, mixup 782 and 95, cutmix 1011 and 107,
cutout 393 and 58, trivial_augment 342 and 55, rand_augment 373 and 82, shakedrop 747 and 219. A thread that draws ahead
is not used: beside a main thread that calls small operations, the time per step with it was 0.8 to 2.2 times that
without it, which is within the spread of that busy machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.methods import Method
from fastreg.methods.base import Arrays, DrawKeys, as_size, ship_batches

SAMPLES, BATCHES = 1 << 13, 64  # drawn at once, at most: more are no faster, and take more memory

Drawn = dict[str, dict[str, Tensor]]  # "plan", "fields" and "colors" of one micro-batch, by name, on the device


class Draws:
    """The draws of each micro-batch, made when they are needed or, after :meth:`expect`, many at once before.

    Args:
        method: whose plans and fields are drawn.
        layers: residual blocks with random factors.
        colors: function of (keys int64 [B], epoch) that returns the factors of the color jitter, or None.
        device: of the results.
    """

    def __init__(
        self, method: Method, layers: int, colors: Callable[[np.ndarray, int], Arrays] | None, device: torch.device
    ) -> None:
        self.method, self.layers, self.colors, self.device = method, layers, colors, device
        self._setting: tuple[Any, ...] = ()
        self._coming: Sequence[np.ndarray] = ()
        self._step, self._accumulate, self._next = 0, 1, 0
        self._ready: dict[tuple[int, int], tuple[np.ndarray, Drawn]] = {}

    def expect(
        self, keys: Sequence[np.ndarray], step: int, accumulate: int, epoch: int, size: int, mixing: bool
    ) -> None:
        """Name the micro-batches to come, in place of those named before.

        Args:
            keys: int64 [B] of each micro-batch, ``Batch.keys``.
            step: of the first.
            accumulate: micro-batches of a step.
            epoch: of all of them.
            size: side of their images in pixels.
            mixing: whether the method mixes.
        """
        self._setting, self._coming = (epoch, size, mixing), keys
        self._step, self._accumulate, self._next = step, accumulate, 0
        self._ready.clear()

    def take(self, keys: Tensor, step: int, micro: int, epoch: int, size: int, mixing: bool) -> Drawn:
        """The draws of one micro-batch. One that was not expected, such as after skipped images, is drawn now."""
        if self._setting == (epoch, size, mixing):
            if not self._ready:
                self._draw_coming()
            ready = self._ready.pop((step, micro), None)
            if ready is not None and np.array_equal(ready[0], keys.numpy()):
                return ready[1]
        samples = keys.to("cpu").numpy()
        return self._draw(DrawKeys(samples, np.array([step]), epoch, as_size(size)), mixing)[0]

    def _draw_coming(self) -> None:
        first, count = self._next, 0
        coming = self._coming[first : first + BATCHES]
        if not coming:
            return
        length = len(coming[0])
        most = max(1, SAMPLES // max(1, length))
        while count < min(most, len(coming)) and len(coming[count]) == length:
            count += 1
        self._next += count
        epoch, size, mixing = self._setting
        at = [divmod(number, self._accumulate) for number in range(first, first + count)]
        steps = np.array([self._step + step for step, _ in at])
        drawn = self._draw(DrawKeys(np.concatenate(coming[:count]), steps, epoch, as_size(size)), mixing)
        for (_, micro), step, own, result in zip(at, steps.tolist(), coming, drawn):
            self._ready[step, micro] = own, result

    def _draw(self, keys: DrawKeys, mixing: bool) -> list[Drawn]:
        method = self.method
        draw: Any = method.draw if mixing or method.plain is None else method.plain
        fields: Any = method.fields
        arrays = {"plan": draw.arrays(keys)}
        if fields is not None:
            arrays["fields"] = fields.arrays(keys, self.layers)
        if self.colors is not None:
            arrays["colors"] = self.colors(keys.samples, keys.epoch)
        flat = {f"{kind} {name}": array for kind, own in arrays.items() for name, array in own.items()}
        names = [(kind, name) for kind, own in arrays.items() for name in own]
        results: list[Drawn] = []
        for batch in ship_batches(flat, len(keys.steps), self.device):
            results.append({kind: {} for kind in arrays})
            for (kind, name), tensor in zip(names, batch.values()):
                results[-1][kind][name] = tensor
        return results
