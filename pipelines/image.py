"""One stored image: its size from the header alone, and its pixels as Pillow (and torchvision) decode them."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image

try:
    from simplejpeg import decode_jpeg
except ImportError:  # a bare checkout: Pillow decodes all, more slowly
    decode_jpeg = None

# What a broken or hostile file makes Pillow raise.
ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    MemoryError,
    OverflowError,
    Image.DecompressionBombError,
)
# Oddities of metadata and large (not bomb-sized) images are not worth a line each in every run.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive Huffman
_BARE = range(0xD0, 0xD9)  # markers without a length


class Header(NamedTuple):
    """Size in pixels; ``plain``: every decoder makes the same of it (8-bit grey or RGB JPEG with its end marker)."""

    height: int
    width: int
    plain: bool


def header(stored: bytes | np.ndarray) -> Header:
    """Read no further than the frame header. Raises one of ERRORS for what is not an image."""
    if isinstance(stored, np.ndarray):
        return Header(stored.shape[0], stored.shape[1], False)
    jpeg = _jpeg(stored)
    if jpeg is not None and jpeg.height * jpeg.width <= (Image.MAX_IMAGE_PIXELS or 1 << 62):
        return jpeg
    image = open_image(stored)
    return Header(image.height, image.width, False)


def _jpeg(data: bytes) -> Header | None:
    """Of a plain JPEG, from its markers; None for whatever needs a closer look."""
    if data[:2] != b"\xff\xd8" or b"\xff\xd9" not in data[-64:]:
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            plain = data[at + 4] == 8 and data[at + 9] in (1, 3) and height > 0 and width > 0
            return Header(height, width, True) if plain else None
        if marker == 0xFF:
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker < 0xC0 or (0xC3 <= marker <= 0xCF and marker != 0xC4) or marker == 0xDA:
            return None
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


def open_image(stored: bytes | np.ndarray) -> Image.Image:
    """A lazily decoded Pillow image. Raises one of ERRORS."""
    return Image.fromarray(stored) if isinstance(stored, np.ndarray) else Image.open(io.BytesIO(stored))


def pixels(stored: bytes | np.ndarray, plain: bool) -> np.ndarray:
    """uint8 [H, W, 3], Pillow's bits; EXIF rotation is not applied, as in torchvision. Raises one of ERRORS.

    A plain JPEG goes through simplejpeg, whose libjpeg-turbo gives the same bits with less copying and lets other
    threads run. It refuses whatever libjpeg as much as warns about, and what it refuses Pillow judges: so Pillow alone
    says which files are broken.
    """
    if isinstance(stored, np.ndarray):
        return stored
    if plain and decode_jpeg is not None:
        with contextlib.suppress(ValueError):
            return decode_jpeg(stored, "RGB")
    return np.asarray(open_image(stored).convert("RGB"))


def reason(error: BaseException) -> str:
    """One short clause for why a file was refused."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".").split("\n")[0] or type(error).__name__
