"""Contact sheets: one image under every corruption and severity."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastreg.errors import InputError, RunError
from fastreg.files import atomic_write
from fastreg.metrics.corruption import CATEGORIES
from fastreg.pipelines.image import ERRORS, open_image, reason, to_rgb

TILE, GAP, LABEL, HEAD, TITLE = 112, 4, 128, 26, 40  # pixels
_INK, _FAINT, _RULE, _PAPER = (28, 30, 34), (105, 111, 120), (227, 229, 233), (255, 255, 255)


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
    """Draw an image under every corruption (rows, by category) at severities 0 to 5 (columns).

    Args:
        image: path of a file, a PIL image, or uint8 [S, S, 3]. Files and PIL images are resized to 256/224 of ``size``
            and center-cropped to ``size``; arrays are drawn as they are.
        out: the file to write, .png or .jpg; None: no file.
        size: side of the images in pixels.
        constants: name of a set of severity constants; "auto": the set of the nearest size.
        corruptions: names, as a list or joined by commas; None: all.
        frost_dir: folder of the frost images.
        jpeg: add the final JPEG step of ImageNet-C.
        seed: of the random draws.
        tile: side of a drawn image in pixels; smaller images are enlarged by the nearest whole factor.
        strict: raise an InputError if frost cannot be drawn, instead of leaving it out.

    Returns:
        The contact sheet, and one sentence for each corruption that is left out.

    Raises:
        InputError: no such image file, an unknown name, or another suffix of ``out``.
        RunError: the image cannot be decoded, or ``out`` cannot be written.
    """
    import torch

    from fastreg.evaluation.conditions import SEVERITIES, corruption_conditions, frost_textures, nearest_constants
    from fastreg.kernels import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt

    if size < 1:
        raise InputError(f"`size` is {size}: give 1 pixel or more.")
    if isinstance(corruptions, str):
        corruptions = [name.strip() for name in corruptions.split(",")]
    names = list(
        dict.fromkeys(n for n, _ in corruption_conditions(corruptions or (*CORRUPTIONS, *EXTRA_CORRUPTIONS), None))
    )
    pixels = _square(image, size)
    batch = torch.from_numpy(pixels.copy())[None]
    constants, scale = nearest_constants(constants, len(pixels))
    category = {name: group for group, members in CATEGORIES.items() for name in members}
    names.sort(key=[*category, *names].index)  # category by category
    textures, notes = None, []
    if "frost" in names:
        try:
            textures = frost_textures(frost_dir, len(pixels), constants, scale)
        except InputError as error:
            if strict:
                raise
            names.remove("frost")
            notes.append(f"frost is left out: {error}")
    groups: dict[str, list[tuple[str, list[np.ndarray]]]] = {}
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
        groups.setdefault(category.get(name, "extra"), []).append((name, row))
    drawn = _assemble(groups, f"Corruptions at severities 1 to 5, {len(pixels)} px, constants {constants}", tile)
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
            image = open_image(path.read_bytes())
            image.load()
        except ERRORS as error:
            raise RunError(f"cannot read {path} as an image ({reason(error)}): give another file.") from error
    rgb = Image.fromarray(to_rgb(image))
    short, (width, height) = int(size * 256 / 224), rgb.size
    if width <= height:
        rgb = rgb.resize((short, int(short * height / width)), Image.Resampling.BILINEAR)
    else:
        rgb = rgb.resize((int(short * width / height), short), Image.Resampling.BILINEAR)
    left, top = round((rgb.width - size) / 2), round((rgb.height - size) / 2)
    return np.array(rgb.crop((left, top, left + size, top + size)))


def _assemble(groups: Mapping[str, Sequence[tuple[str, Sequence[np.ndarray]]]], title: str, tile: int) -> Image.Image:
    """Draw groups of rows below their names. Images smaller than a tile are enlarged by a whole factor."""
    rows = [row for group in groups.values() for row in group]
    columns = len(rows[0][1]) if rows else 1
    side = rows[0][1][0].shape[0] if rows else tile
    if side < tile:
        tile = side * round(tile / side)
    height = TITLE + HEAD + sum(HEAD + len(group) * (tile + GAP) for group in groups.values()) + GAP
    sheet = Image.new("RGB", (LABEL + columns * (tile + GAP) + GAP, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    small, plain, large = (ImageFont.load_default(points) for points in (13, 14, 18))
    pen.text((GAP * 2, TITLE / 2), title, _INK, large, anchor="lm")
    for column in range(columns):
        x = LABEL + column * (tile + GAP) + tile / 2
        pen.text((x, TITLE + HEAD / 2), "original" if column == 0 else str(column), _FAINT, small, anchor="mm")
    y = TITLE + HEAD
    for category, group in groups.items():
        pen.text((GAP * 2, y + HEAD / 2), category, _FAINT, plain, anchor="lm")
        pen.line((LABEL, y + HEAD / 2, sheet.width - GAP, y + HEAD / 2), _RULE)
        y += HEAD
        for name, images in group:
            at = (LABEL - 10, y + tile / 2)
            pen.multiline_text(at, name.replace("_", "\n"), _INK, plain, anchor="rm", align="right")
            for column, pixels in enumerate(images):
                drawn = Image.fromarray(pixels)
                if drawn.width != tile:
                    nearest, smooth = Image.Resampling.NEAREST, Image.Resampling.LANCZOS
                    drawn = drawn.resize((tile, tile), nearest if drawn.width < tile else smooth)
                sheet.paste(drawn, (LABEL + column * (tile + GAP), y))
            y += tile + GAP
    return sheet
