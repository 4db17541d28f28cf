"""One stored image: its size from the header alone, and its pixels as Pillow and torchvision decode them."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image

try:
    from simplejpeg import decode_jpeg
except ImportError:  # Pillow decodes everything, more slowly
    decode_jpeg = None

# What Pillow raises for a broken or hostile file
ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    MemoryError,
    OverflowError,
    Image.DecompressionBombError,
)
# Odd metadata and large (not bomb-sized) images would warn in every run.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive Huffman
_NO_LENGTH = range(0xD0, 0xD9)  # markers without a length field


class Header(NamedTuple):
    """Size in pixels; ``plain``: an 8-bit gray or RGB JPEG with its end marker, which every decoder reads alike."""

    height: int
    width: int
    plain: bool


def header(stored: bytes | np.ndarray) -> Header:
    """Size and kind of a stored image; reads no further than the frame header. Raises one of ERRORS."""
    if isinstance(stored, np.ndarray):
        return Header(stored.shape[0], stored.shape[1], False)
    jpeg = _jpeg(stored)
    if jpeg is not None and jpeg.height * jpeg.width <= (Image.MAX_IMAGE_PIXELS or 1 << 62):
        return jpeg
    image = open_image(stored)
    return Header(image.height, image.width, False)


def _jpeg(data: bytes) -> Header | None:
    """The header of a plain JPEG, from its markers; None for every other file."""
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
        elif marker in _NO_LENGTH:
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
    """The pixels of a stored image, bit-equal to Pillow's.

    EXIF rotation is not applied, as in torchvision. simplejpeg decodes plain JPEGs: its libjpeg-turbo gives the same
    bits with less copying and releases the interpreter's lock. It refuses every file that libjpeg warns about; Pillow
    then decodes or refuses it, so that Pillow alone decides which files are broken.

    Args:
        stored: Encoded image, or a canvas uint8 [H, W, 3], which is returned as it is.
        plain: ``header(stored).plain``.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        One of ERRORS: The image is broken.
    """
    if isinstance(stored, np.ndarray):
        return stored
    if plain and decode_jpeg is not None:
        with contextlib.suppress(ValueError):
            return decode_jpeg(stored, "RGB")
    return np.asarray(open_image(stored).convert("RGB"))


def reason(error: BaseException) -> str:
    """Why a file was refused, one short clause."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".").split("\n")[0] or type(error).__name__
