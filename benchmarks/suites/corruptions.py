"""Images per second of each corruption at each severity, draws included, beside imagecorruptions, kornia and plain
torch.

On a CPU both run on one thread, so that the figures are per core.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from fastreg.benchmarks.cases import working
from fastreg.benchmarks.images import frost_textures, image_batch, photographs
from fastreg.benchmarks.options import Job
from fastreg.benchmarks.peers.corruptions import peers
from fastreg.benchmarks.peers.training import need
from fastreg.benchmarks.record import OURS, Absent, Row
from fastreg.benchmarks.timing import Timing, buffer_sets, measure, over
from fastreg.kernels import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt, jpeg_round_trip
from fastreg.kernels.corruptions.constants import CONSTANTS

PEER = "imagecorruptions"
SIZES = {224: "imagenet224", 299: "imagenet299", 64: "tiny64", 32: "cifar32"}


def rows(job: Job, settings: dict[str, Any]) -> Iterator[Row | Absent]:
    size, batch = job.size or 224, job.batch_size or (256 if job.gpu else 8)
    settings |= {"size": size, "batch_size": batch, "constants": SIZES.get(size, "imagenet224")}
    settings["images"] = photographs(job.data_dir)[1]
    if not job.gpu:
        settings["threads"] = 1
    with _one_thread(job):
        yield from _rows(job, size, batch, settings)


def _rows(job: Job, size: int, batch: int, settings: dict[str, Any]) -> Iterator[Row | Absent]:
    names = CORRUPTIONS if job.quick else [*CORRUPTIONS, *EXTRA_CORRUPTIONS]
    severities = (3,) if job.quick else (1, 2, 3, 4, 5)
    textures, settings["frost"] = frost_textures()
    peer, why = _peer()
    if peer is None:
        yield Absent("corrupt", PEER, why)
    batched, why = peers()
    if why:
        yield Absent("corrupt brightness, saturate, gaussian_blur, defocus_blur", "kornia", why)
    sets = buffer_sets(job.device, 2 * batch * size * size * 3)
    images = [image_batch(batch, size, job.device, i, job.data_dir) for i in range(sets)]
    single = images[0][0].cpu().numpy()
    given = {"indices": torch.arange(batch), "constants": settings["constants"], "textures": textures}
    seconds = job.seconds(0.3 if job.gpu else 2.0)
    # the JPEG step of ImageNet-C is a second set of figures where there is time for it
    for jpeg in (False, True) if job.gpu and not job.quick else (False,):
        ending = " jpeg" if jpeg else ""
        ours: dict[tuple[str, int], Timing] = {}
        for name, severity in itertools.product(CORRUPTIONS if jpeg else names, severities):
            case = f"corrupt {name} {severity}{ending}"
            variants: dict[str, Any] = {
                OURS: over(partial(corrupt, name=name, severity=severity, jpeg=jpeg, **given), images)
            }
            if peer is not None and not jpeg:
                variants[PEER] = lambda i, name=name, severity=severity: peer(single, name, severity)
            for (other, who), function in batched.items() if not jpeg else ():
                if other == name:
                    parameter = CONSTANTS[settings["constants"]][name][severity - 1]
                    variants[who] = over(partial(function, parameter=parameter), images)
            yield from working(case, variants)
            timings = measure(variants, job.device, sets=sets, seconds=seconds, eager=variants) if variants else {}
            for variant, timing in timings.items():
                yield Row.of(case, variant, timing, images=1 if variant == PEER else batch)
            if OURS in timings:
                ours[name, severity] = timings[OURS]
        complete = [timing for (name, _), timing in ours.items() if name in CORRUPTIONS]
        if len(complete) == len(CORRUPTIONS) * len(severities):
            yield Row.of(f"corrupt all 15 x {len(severities)}{ending}", OURS, _mean(complete), images=batch)
    timings = measure({OURS: lambda i: jpeg_round_trip(images[i], 85)}, job.device, sets=sets, seconds=seconds)
    yield Row.of("jpeg_round_trip 85", OURS, timings[OURS], images=batch)


def _mean(timings: list[Timing]) -> Timing:
    """The mean of the medians: images over it is the harmonic mean of the rates."""
    us, low, high = (sum(values) / len(timings) for values in zip(*(t[:3] for t in timings)))
    return Timing(us, low, high, min(t.runs for t in timings), "mean of the rows above")


def _peer() -> tuple[Any, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            package = need(PEER)
        except ImportError as error:
            return None, f"{error}; it needs scikit-image and setuptools<81"

    def one(image: np.ndarray, name: str, severity: int) -> np.ndarray:
        return package.corrupt(image, corruption_name=name, severity=severity)

    return one, ""


class _one_thread:
    """torch and OpenCV on one thread while on the CPU."""

    def __init__(self, job: Job):
        self.on = not job.gpu

    def __enter__(self) -> None:
        import cv2

        self.before = torch.get_num_threads(), cv2.getNumThreads()
        if self.on:
            torch.set_num_threads(1)
            cv2.setNumThreads(1)

    def __exit__(self, *_: Any) -> None:
        import cv2

        torch.set_num_threads(self.before[0])
        cv2.setNumThreads(self.before[1])
