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
    """Size in pixels. ``plain``: an 8-bit gray or RGB JPEG with an end marker, which all decoders read alike."""

    height: int
    width: int
    plain: bool


def _refuse_bomb(height: int, width: int) -> None:
    """Raise for an image above Pillow's limit. Pillow refuses only twice the limit: half a gigabyte of pixels."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise Image.DecompressionBombError(
            f"it claims {width} x {height} pixels, a decompression bomb: more than {limit:,} are not decoded"
        )


def header(stored: bytes | np.ndarray) -> Header:
    """Size and kind of a stored image, from its headers alone. Raises one of ERRORS."""
    if isinstance(stored, np.ndarray):
        return Header(stored.shape[0], stored.shape[1], False)
    jpeg = _jpeg(stored)
    if jpeg is not None:
        _refuse_bomb(jpeg.height, jpeg.width)
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
    if isinstance(stored, np.ndarray):
        return Image.fromarray(stored)
    image = Image.open(io.BytesIO(stored))
    _refuse_bomb(image.height, image.width)
    return image


def to_rgb(image: Image.Image) -> np.ndarray:
    """The pixels of an image, uint8 [H, W, 3]; more than 8 bits of gray are scaled. Raises one of ERRORS.

    Pillow's own conversion (and torchvision's) clips values above 255, which turns such images black and white.
    """
    if not _deep(image):
        return np.asarray(image.convert("RGB"))
    gray, scale = np.asarray(image), scaling(image)
    if scale == GRAY16:
        levels = np.rint(gray.astype(np.float64) / 257)
    elif scale == UNIT:
        levels = np.rint(gray.astype(np.float64) * 255)
    elif scale == BYTES:
        levels = np.rint(gray)
    else:
        low, high = float(gray.min()), float(gray.max())
        levels = np.rint((gray.astype(np.float64) - low) * (255 / (high - low or 1)))
    return np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2)


GRAY16 = "16-bit gray, divided by 257"
UNIT = "gray from 0 to 1, multiplied by 255"
BYTES = "gray from 0 to 255 in more than 8 bits, rounded"
STRETCHED = "gray of another range, stretched from its own least and greatest value to 0 and 255"


def _deep(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I")


def scaling(image: Image.Image) -> str:
    """How ``to_rgb`` scales the pixels of an image, one clause; empty if it does not. Raises one of ERRORS."""
    if not _deep(image):
        return ""
    gray = np.asarray(image)
    if gray.size == 0 or not np.isfinite(gray).all():
        raise ValueError("it has pixels that are no finite numbers")
    low, high = float(gray.min()), float(gray.max())
    if image.mode.startswith("I;16") or (image.format == "PNG" and low >= 0 and high <= 0xFFFF):
        return GRAY16
    if image.mode == "F" and low >= 0 and high <= 1:
        return UNIT
    if low >= 0 and high <= 255:
        return BYTES
    return GRAY16 if low >= 0 and high <= 0xFFFF else STRETCHED


def pixels(stored: bytes | np.ndarray, plain: bool) -> np.ndarray:
    """The pixels of a stored image, bit-equal to Pillow's, except for the images that ``to_rgb`` scales.

    EXIF rotation is not applied, as in torchvision. simplejpeg decodes plain JPEGs: its libjpeg-turbo gives the same
    bits with less copying and releases the GIL. simplejpeg refuses every file that libjpeg warns about. Pillow then
    decodes or refuses the file, so that Pillow alone decides which files are broken.

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
    return to_rgb(open_image(stored))


def reason(error: BaseException) -> str:
    """The reason why a file was refused, as a short clause."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".").split("\n")[0] or type(error).__name__
