"""Loaders of PyTorch, DALI, FFCV, SPDL and torchvision, each set up as in its documentation.

``build(source, batch, size, workers, options)`` returns an endless iterator of batches; a package that is missing
raises ImportError.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastreg.benchmarks.options import BenchmarkOptions
from fastreg.benchmarks.peers import need, spdl
from fastreg.pipelines.crop import random_boxes

_KEPT: list[Any] = []  # FFCV's loaders, never freed: freeing one makes numba print the traceback of a KeyError


class _Files(torch.utils.data.Dataset):
    """A map-style data set of random-resized crops, as torchvision's ImageFolder with RandomResizedCrop makes them.

    ``cut(bytes, box, size)`` decodes, crops and resizes.
    """

    def __init__(self, source: Any, size: int, cut: Callable[[bytes, Callable[..., Any], int], np.ndarray]):
        self.source, self.size, self.cut = source, size, cut

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        def box(height: int, width: int) -> list[int]:
            seed = int(torch.randint(1 << 31, ()))
            return random_boxes(seed, np.array([index]), 0, np.array([height]), np.array([width]))[0].tolist()

        return self.cut(self.source.read(index), box, self.size), int(self.source.labels[index])


def _by_pillow(stored: bytes, box: Callable[..., Any], size: int) -> np.ndarray:
    """Bilinear and antialiased, as torchvision on Pillow images."""
    from PIL import Image

    with Image.open(io.BytesIO(stored)) as image:
        top, left, height, width = box(image.height, image.width)
        cut = image.convert("RGB").crop((left, top, left + width, top + height))
        return np.array(cut.resize((size, size), Image.Resampling.BILINEAR))


def _by_opencv(stored: bytes, box: Callable[..., Any], size: int) -> np.ndarray:
    """Bilinear without antialiasing, which OpenCV does not have: less work than the other loaders do."""
    import cv2

    image = cv2.cvtColor(cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    top, left, height, width = box(*image.shape[:2])
    return cv2.resize(image[top : top + height, left : left + width], (size, size), interpolation=cv2.INTER_LINEAR)


def _by_torchvision(stored: bytes, box: Callable[..., Any], size: int) -> np.ndarray:
    """torchvision's decoder and its antialiased resize of tensors."""
    io_, v2 = need("torchvision.io"), need("torchvision.transforms.v2.functional")
    encoded = torch.frombuffer(bytearray(stored), dtype=torch.uint8)
    image = io_.decode_image(encoded, mode=io_.ImageReadMode.RGB)
    top, left, height, width = box(*image.shape[1:])
    return v2.resized_crop(image, top, left, height, width, [size, size], antialias=True).permute(1, 2, 0).numpy()


def torchvision_loader(source: Any, batch: int, size: int, workers: int, options: BenchmarkOptions) -> Iterator[Any]:
    """``data_loader`` with torchvision's decoder, if its compiled library can be loaded."""
    need("torchvision.io")
    try:
        _by_torchvision(source.read(0), lambda height, width: (0, 0, height, width), size)
    except RuntimeError as error:
        reason = str(error).split(".")[0]
        raise ImportError(f"torchvision's decoder cannot be loaded ({reason})") from None
    yield from data_loader(_by_torchvision, source, batch, size, workers, options)


def data_loader(cut: Any, source: Any, batch: int, size: int, workers: int, options: BenchmarkOptions) -> Iterator[Any]:
    """torch's DataLoader with one process per core, persistent workers and pinned memory on a GPU."""
    loader = torch.utils.data.DataLoader(
        _Files(source, size, cut),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=options.gpu,
    )
    while True:
        for images, labels in loader:
            yield images.to(options.device, non_blocking=True), labels


def bare_dali(source: Any, batch: int, size: int, workers: int, options: BenchmarkOptions) -> Iterator[Any]:
    """NVIDIA's training pipeline: file reader, decode with random crop, resize; mixed decoder on a GPU."""
    need("nvidia.dali")
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.base_iterator import LastBatchPolicy
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    files = [source.describe(i) for i in range(len(source))]
    if not Path(files[0]).is_file():
        raise ImportError("its file reader needs a folder of images")

    @pipeline_def
    def pipe() -> Any:
        encoded, labels = fn.readers.file(
            files=files, labels=source.labels.tolist(), shuffle_after_epoch=True, name="Reader"
        )
        images = fn.decoders.image_random_crop(
            encoded,
            device="mixed" if options.gpu else "cpu",
            output_type=types.RGB,
            random_aspect_ratio=[3 / 4, 4 / 3],
            random_area=[0.08, 1.0],
        )
        return fn.resize(images, resize_x=size, resize_y=size, interp_type=types.INTERP_LINEAR, antialias=True), labels

    built = pipe(
        batch_size=batch, num_threads=workers, device_id=(options.device.index or 0) if options.gpu else None, seed=1
    )
    loader = DALIGenericIterator(
        [built], ["images", "labels"], reader_name="Reader", last_batch_policy=LastBatchPolicy.DROP, auto_reset=True
    )
    while True:
        yield from loader


def bare_ffcv(source: Any, batch: int, size: int, workers: int, options: BenchmarkOptions) -> Iterator[Any]:
    """FFCV's Loader over the same .beton file, random order, its random-resized-crop decoder on the CPU."""
    need("ffcv")
    from ffcv.fields.decoders import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToDevice, ToTensor

    pipeline: list[Any] = [RandomResizedCropRGBImageDecoder((size, size)), ToTensor()]
    if options.gpu:
        pipeline.append(ToDevice(options.device, non_blocking=True))
    loader = Loader(
        str(source.path),
        indices=np.arange(len(source)) % len(np.unique(source.pointers)),  # a lengthened source's samples
        batch_size=batch,
        num_workers=workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={"image": pipeline},
    )
    _KEPT.append(loader)
    while True:
        yield from loader


def nvjpeg(source: Any, batch: int, size: int, workers: int, options: BenchmarkOptions) -> Iterator[Any]:
    """torchvision's batched nvJPEG decode, then its RandomResizedCrop on the device, image by image."""
    io_, v2 = need("torchvision.io"), need("torchvision.transforms.v2")
    if not options.gpu:
        raise ImportError("torchvision's nvJPEG decode needs a GPU")
    crop = v2.RandomResizedCrop(size, antialias=True)
    while True:
        for rows in torch.randperm(len(source)).split(batch):
            encoded = [torch.frombuffer(bytearray(source.read(int(i))), dtype=torch.uint8) for i in rows]
            yield torch.stack([crop(x) for x in io_.decode_jpeg(encoded, mode=io_.ImageReadMode.RGB, device="cuda")])


PEERS: dict[str, dict[str, Callable[..., Iterator[Any]]]] = {
    "folder": {
        "DataLoader + Pillow": partial(data_loader, _by_pillow),
        "DataLoader + OpenCV": partial(data_loader, _by_opencv),
        "DataLoader + torchvision": torchvision_loader,
        **spdl.PEERS,
        "bare DALI": bare_dali,
        "torchvision nvJPEG": nvjpeg,
    },
    "dali": {"bare DALI": bare_dali},
    "ffcv": {"bare FFCV": bare_ffcv},
}
