"""Contact sheets: one image under every corruption and severity."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastreg.errors import InputError, RunError
from fastreg.files import atomic_write

TILE, GAP, LABEL, HEAD = 112, 4, 128, 26  # pixels
_INK, _FAINT, _PAPER = (28, 30, 34), (120, 124, 130), (255, 255, 255)


def contact_sheet(
    image: Any,
    out: str | Path | None = None,
    *,
    size: int = 224,
    constants: str = "auto",
    corruptions: str | Iterable[str] | None = None,
    frost_dir: str | Path | None = None,
    jpeg: bool = False,
    seed: int = 0,
    tile: int = TILE,
    strict: bool = False,
) -> tuple[Image.Image, list[str]]:
    """Draw an image under every corruption (rows) at severities 0 to 5 (columns).

    Args:
        image: path of a file, a PIL image, or uint8 [S, S, 3]. Files and PIL images are resized to 256/224 of ``size``
            and center-cropped to ``size``; arrays are drawn as they are.
        out: the file to write, .png or .jpg; None: no file.
        size: side of the images in pixels.
        constants: name of a set of severity constants; "auto": by size.
        corruptions: names, as a list or joined by commas; None: all.
        frost_dir: folder of the frost images.
        jpeg: add the final JPEG step of ImageNet-C.
        seed: of the random draws.
        tile: side of a drawn image in pixels.
        strict: raise an InputError if frost cannot be drawn, instead of leaving it out.

    Returns:
        The contact sheet, and one sentence for each corruption that is left out.

    Raises:
        InputError: no such image file, an unknown corruption, a size without constants, or another suffix of ``out``.
        RunError: the image cannot be decoded, or ``out`` cannot be written.
    """
    import torch

    from fastreg.evaluation.conditions import SEVERITIES, constants_for, corruption_conditions, frost_textures
    from fastreg.kernels import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt

    if size < 1:
        raise InputError(f"`size` is {size}: give 1 pixel or more.")
    if isinstance(corruptions, str):
        corruptions = [name.strip() for name in corruptions.split(",")]
    names = list(
        dict.fromkeys(n for n, _ in corruption_conditions(corruptions or (*CORRUPTIONS, *EXTRA_CORRUPTIONS), None))
    )
    pixels = _square(image, size)
    batch, constants = torch.from_numpy(pixels.copy())[None], constants_for(constants, len(pixels))
    textures, notes = None, []
    if "frost" in names:
        try:
            textures = frost_textures(frost_dir, len(pixels), constants)
        except InputError as error:
            if strict:
                raise
            names.remove("frost")
            notes.append(f"frost is left out: {error}")
    rows = []
    for name in names:
        row = [pixels]
        for severity in SEVERITIES:
            done = corrupt(
                batch,
                name,
                severity,
                seed=seed,
                indices=torch.zeros(1, dtype=torch.int64),
                constants=constants,
                jpeg=jpeg,
                textures=textures,
            )
            row.append(done[0].numpy())
        rows.append((name, row))
    drawn = _assemble(rows, tile)
    if out is not None:
        save(drawn, out)
    return drawn, notes


def save(image: Image.Image, out: str | Path) -> None:
    """Write an image atomically, in the format of its suffix."""
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=Image.registered_extensions()[Path(out).suffix.lower()], quality=90)
    except (KeyError, OSError) as error:
        raise InputError(f"`out` is {out}: give the name of a .png or .jpg file.") from error
    atomic_write(out, buffer.getvalue())


def _square(image: Any, size: int) -> np.ndarray:
    """uint8 [S, S, 3] of a file, a PIL image or an array, by the validation protocol of ImageNet."""
    if isinstance(image, np.ndarray):
        return np.ascontiguousarray(image)
    if not isinstance(image, Image.Image):
        path = Path(image)
        if not path.is_file():
            raise InputError(f"no image at {path}: give the path of an image file.")
        try:
            image = Image.open(path)
            image.load()
        except OSError as error:
            raise RunError(f"cannot read {path} as an image ({error}): give another file.") from error
    rgb = image.convert("RGB")
    short, (width, height) = int(size * 256 / 224), rgb.size
    if width <= height:
        rgb = rgb.resize((short, int(short * height / width)), Image.Resampling.BILINEAR)
    else:
        rgb = rgb.resize((int(short * width / height), short), Image.Resampling.BILINEAR)
    left, top = round((rgb.width - size) / 2), round((rgb.height - size) / 2)
    return np.array(rgb.crop((left, top, left + size, top + size)))


def _assemble(rows: list[tuple[str, list[np.ndarray]]], tile: int) -> Image.Image:
    columns = len(rows[0][1]) if rows else 1
    width, height = LABEL + columns * (tile + GAP) + GAP, HEAD + len(rows) * (tile + GAP) + GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    small, plain = ImageFont.load_default(13), ImageFont.load_default(14)
    for column in range(columns):
        x = LABEL + column * (tile + GAP) + tile / 2
        pen.text((x, HEAD / 2), "original" if column == 0 else str(column), _FAINT, small, anchor="mm")
    for index, (name, images) in enumerate(rows):
        y = HEAD + index * (tile + GAP)
        pen.multiline_text((LABEL - 10, y + tile / 2), name.replace("_", "\n"), _INK, plain, anchor="rm", align="right")
        for column, pixels in enumerate(images):
            # nearest neighbor keeps the pixels of small images visible
            grow = pixels.shape[0] < tile
            shown = Image.fromarray(pixels).resize(
                (tile, tile), Image.Resampling.NEAREST if grow else Image.Resampling.LANCZOS
            )
            sheet.paste(shown, (LABEL + column * (tile + GAP), y))
    return sheet
