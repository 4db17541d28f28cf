"""Real images for the benchmarks: clocks, caches and JPEG work depend on the content of the pixels."""

from __future__ import annotations

import importlib.util
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from fastreg.errors import InputError

_GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden" / "corruptions.npz"
_FROST_SIZES = ((600, 900), (315, 560), (315, 560), (350, 527), (495, 660))
_SKIMAGE = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png")
FILE_SIDES, FILE_QUALITY, FILE_CLASSES = (375, 500), 90, 8  # the most frequent size in ImageNet


@cache
def real_images(data_dir: str | None = None) -> tuple[list[np.ndarray], str]:
    """Real images and their source.

    Args:
        data_dir: folder of the imagenet data set; None: as for ``open_dataset``.

    Returns:
        ``(images, source)``: uint8 RGB arrays of the first source that exists (the data set, scikit-image's wheel, the
        checkout's test image), else noise with the 1/f spectrum of natural images; and the source in words.
    """
    for source in (lambda: _from_data(data_dir), _from_skimage, _from_golden):
        if (found := source()) is not None:
            return found
    return [_one_over_f(512)], "noise with a 1/f spectrum (no image found)"


def image_source(data_dir: str | None = None) -> str:
    """The source of :func:`real_images`, in words."""
    return real_images(data_dir)[1]


def image_batch(n: int, size: int, device: torch.device, seed: int = 0, data_dir: str | None = None) -> torch.Tensor:
    """Random windows of the real images, uint8 [n, size, size, 3] on ``device``; small images are wrapped."""
    return _windows(n, size, seed, data_dir).to(device, copy=True)


@lru_cache(maxsize=8)
def _windows(n: int, size: int, seed: int, data_dir: str | None) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    stock, _ = real_images(data_dir)
    out = np.empty((n, size, size, 3), np.uint8)
    for row in out:
        image = stock[rng.integers(len(stock))]
        if rng.integers(2):
            image = image[:, ::-1]
        rows, columns = (int(rng.integers(side)) + np.arange(size) for side in image.shape[:2])
        row[:] = np.take(np.take(image, rows, 0, mode="wrap"), columns, 1, mode="wrap")
    return torch.from_numpy(out)


def write_files(root: Path, n: int, seed: int = 0, sides: tuple[int, int] = FILE_SIDES, extension: str = "JPEG") -> str:
    """Write image files: random crops of real images at 60 to 100 % of the largest size, resized to ``sides``.

    Args:
        root: folder; the files become ``root/train/<class>/*.JPEG``, and one per class in ``root/val``.
        n: number of training files.
        seed: of the crops.
        sides: height and width in pixels.
        extension: JPEG (of quality 90) or PNG.

    Returns:
        A description of the files with their source.
    """
    import cv2

    stock, where = _from_skimage() or real_images()  # the images of the sample are smaller
    rng = np.random.default_rng(seed)
    height, width = sides
    for number in range(n + FILE_CLASSES):
        image = stock[rng.integers(len(stock))]
        scale = rng.uniform(0.6, 1.0) * min(image.shape[0] / height, image.shape[1] / width)
        h, w = int(height * scale), int(width * scale)
        top, left = (int(rng.integers(side - cut + 1)) for side, cut in zip(image.shape, (h, w)))
        cut = cv2.resize(image[top : top + h, left : left + w], (width, height), interpolation=cv2.INTER_CUBIC)
        folder = root / ("train" if number < n else "val") / f"class{number % FILE_CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        settings = [cv2.IMWRITE_JPEG_QUALITY, FILE_QUALITY] if extension == "JPEG" else []
        stored = cv2.imencode(f".{extension}", cut[..., ::-1], settings)[1]
        (folder / f"{number:05d}.{extension}").write_bytes(stored.tobytes())
    form = f"JPEG quality {FILE_QUALITY}" if extension == "JPEG" else extension
    return f"{n} files of {width} x {height}, {form}, from {where}"


@cache
def frost_textures() -> tuple[list[np.ndarray], str]:
    """Textures of the frost corruption and their source.

    Returns:
        ``(textures, source)``: the five published frost images, uint8 RGB. If they are missing, windows of real images
        of the same sizes: the work is the same, the corruption is not, so no result uses them.
    """
    from fastreg.pipelines.frost import load_frost

    try:
        return load_frost(), "the published images"
    except InputError:
        whole = _windows(len(_FROST_SIZES), max(w for _, w in _FROST_SIZES), 7, None).numpy()
        return [x[:h, :w].copy() for x, (h, w) in zip(whole, _FROST_SIZES)], "stand-ins of the same sizes"


def _from_data(data_dir: str | None) -> tuple[list[np.ndarray], str] | None:
    import cv2

    from fastreg.pipelines import open_dataset

    try:
        source = open_dataset("imagenet", "val", data_dir)
    except InputError:
        if data_dir is not None:
            raise
        return None
    chosen = np.linspace(0, len(source) - 1, min(len(source), 64)).astype(int)
    stored = (source.read(int(i)) for i in chosen)
    decoded = [cv2.imdecode(np.frombuffer(x, np.uint8), cv2.IMREAD_COLOR) for x in stored if isinstance(x, bytes)]
    images = [np.ascontiguousarray(x[..., ::-1]) for x in decoded if x is not None]
    return (images, "imagenet sample" if source.is_sample else "imagenet") if images else None


def _from_skimage() -> tuple[list[np.ndarray], str] | None:
    import cv2

    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "data"
    decoded = (cv2.imread(str(folder / name)) for name in _SKIMAGE if (folder / name).is_file())
    images = [np.ascontiguousarray(x[..., ::-1]) for x in decoded if x is not None]
    return (images, "scikit-image's images") if images else None


def _from_golden() -> tuple[list[np.ndarray], str] | None:
    if not _GOLDEN.is_file():
        return None
    with np.load(_GOLDEN) as golden:
        return [golden["imagenet224/image"]], "one image, 224 px"


def _one_over_f(side: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    frequency[0, 0] = 1
    planes = []
    for _ in range(3):
        spectrum = np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency
        plane = np.fft.irfft2(spectrum, s=(side, side))
        planes.append(128 + 50 * (plane - plane.mean()) / plane.std())
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)
