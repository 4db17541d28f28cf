"""Images per second of each corruption at each severity, draws included, beside imagecorruptions, kornia and PyTorch.

On a CPU all of them run on one thread, so the figures are per core.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.benchmarks.cases import Case, absent, remove_failing
from fastreg.benchmarks.images import frost_textures, image_batch, image_source
from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peers import need
from fastreg.benchmarks.peers.corruptions import peers
from fastreg.benchmarks.record import OURS, Absent, Row
from fastreg.benchmarks.suites import Benchmark
from fastreg.benchmarks.timing import Call, buffer_sets, measure, over
from fastreg.kernels import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt, jpeg_round_trip
from fastreg.kernels.corruptions.constants import CONSTANTS

BENCHMARK = Benchmark(
    help="each corruption at each severity, draws included; the JPEG round trip", order=4, seconds=55, setup=0.2
)

PEER = "imagecorruptions"
SIZES = {224: "imagenet224", 299: "imagenet299", 64: "tiny64", 32: "cifar32"}


def cases(options: BenchmarkOptions, settings: dict[str, Any]) -> Iterator[Case]:
    size, batch = options.size or 224, options.batch_size or (256 if options.gpu else 8)
    settings |= {"size": size, "batch_size": batch, "constants": SIZES.get(size, "imagenet224")}
    settings["images"] = image_source(options.data_dir)
    if not options.gpu:
        settings["threads"] = 1
    peer, reason = _imagecorruptions()
    if peer is None:
        yield absent("corrupt", PEER, reason)
    batched, reason = peers()
    if reason:
        yield absent("corrupt brightness, saturate, gaussian_blur, defocus_blur", "kornia", reason)
    textures, settings["frost"] = frost_textures()
    sets = buffer_sets(options.device, 2 * batch * size * size * 3)

    @cache
    def images() -> list[Tensor]:
        return [image_batch(batch, size, options.device, i, options.data_dir) for i in range(sets)]

    def variants(name: str, severity: int, jpeg: bool) -> dict[str, Call]:
        given = {"indices": torch.arange(batch), "constants": settings["constants"], "textures": textures}
        found = {OURS: over(partial(corrupt, name=name, severity=severity, jpeg=jpeg, **given), images())}
        if jpeg or options.scope == "main":
            return found
        if peer is not None:
            single = images()[0][0].cpu().numpy()
            found[PEER] = lambda i: peer(single, name, severity)
        for (other, who), prepare in batched.items():
            if other == name:
                parameter = CONSTANTS[settings["constants"]][name][severity - 1]
                found[who] = over(prepare(parameter, options.device), images())
        return found

    for name, severity, jpeg in conditions(options):
        case = f"corrupt {name} {severity}{' jpeg' if jpeg else ''}"
        yield Case(case, partial(_rows, options, case, partial(variants, name, severity, jpeg), sets, batch))
    case = "jpeg_round_trip 85"
    round_trip: Callable[[], dict[str, Call]] = lambda: {OURS: lambda i: jpeg_round_trip(images()[i], 85)}  # noqa: E731
    yield Case(case, partial(_rows, options, case, round_trip, sets, batch, captured=True))


def conditions(options: BenchmarkOptions) -> Iterator[tuple[str, int, bool]]:
    """``(corruption, severity, jpeg)``; the JPEG step of ImageNet-C is a second set of figures at full scope."""
    names = CORRUPTIONS if options.quick else [*CORRUPTIONS, *EXTRA_CORRUPTIONS]
    severities = (3,) if options.quick else (1, 2, 3, 4, 5)
    yield from ((name, severity, False) for name, severity in itertools.product(names, severities))
    if options.gpu and not options.quick:
        yield from ((name, severity, True) for name, severity in itertools.product(CORRUPTIONS, severities))


def aggregate(options: BenchmarkOptions, rows: list[Row]) -> Iterator[Row]:
    """The mean time over all conditions of a set. The images divided by it are the harmonic mean of the rates."""
    ours = {row.name: row for row in rows if row.variant == OURS}
    for ending in ("", " jpeg"):
        severities = (3,) if options.quick else (1, 2, 3, 4, 5)
        names = [f"corrupt {name} {severity}{ending}" for name in CORRUPTIONS for severity in severities]
        complete = [ours[name] for name in names if name in ours]
        if len(complete) == len(names):
            us, low, high = (
                float(f"{sum(getattr(row, key) for row in complete) / len(complete):.5g}")
                for key in ("us", "low", "high")
            )
            yield Row(
                f"corrupt all {len(CORRUPTIONS)} x {len(severities)}{ending}",
                OURS,
                us,
                low,
                high,
                min(row.runs for row in complete),
                images=complete[0].images,
                more={"how": "mean of the rows above"},
            )


def _rows(
    options: BenchmarkOptions,
    case: str,
    build: Callable[[], dict[str, Call]],
    sets: int,
    batch: int,
    captured: bool = False,
) -> Iterator[Row | Absent]:
    with one_thread(options):
        variants = build()
        yield from remove_failing(case, variants)
        if not variants:
            return
        seconds = options.seconds(0.3 if options.gpu else 2.0)
        eager = () if captured else variants
        for variant, timing in measure(variants, options.device, sets=sets, seconds=seconds, eager=eager).items():
            yield Row.of(case, variant, timing, images=1 if variant == PEER else batch)


def _imagecorruptions() -> tuple[Any, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            package = need(PEER)
        except ImportError as error:
            return None, f"{error}; it needs scikit-image and setuptools<81"

    def one(image: np.ndarray, name: str, severity: int) -> np.ndarray:
        return package.corrupt(image, corruption_name=name, severity=severity)

    return one, ""


@contextmanager
def one_thread(options: BenchmarkOptions) -> Iterator[None]:
    """torch and OpenCV on one thread on a CPU."""
    import cv2

    before = torch.get_num_threads(), cv2.getNumThreads()
    if not options.gpu:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
