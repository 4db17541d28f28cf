"""Draw a PNG: every corruption and severity of one image, beside its oracle on the same fields.

    PYTHONPATH=. python -m tests.kernels.corruptions.sheet sheet.png [coffee|chelsea|rocket] [224|299|64|32]

A row is a corruption: our severities, then the oracle's. A pair that differs by more than a level is printed.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from PIL import Image, ImageDraw

from fastreg.kernels.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt, draw_fields
from fastreg.kernels.corruptions.constants import CONSTANTS, SIZES
from fastreg.pipelines.frost import load_frost
from tests.kernels.corruptions.golden_cases import difference, sample_image
from tests.kernels.corruptions.oracles import ORACLES, oracle


def pair(name: str, severity: int, image: np.ndarray, textures) -> tuple[np.ndarray, np.ndarray]:
    """Ours and the oracle's, uint8 [n,n,3] each, from one set of fields."""
    images, n = torch.from_numpy(image)[None], len(image)
    drawn = {"seed": 4, "indices": torch.tensor([11]), "size": n, "textures": textures, "images": images}
    fields = draw_fields(name, severity, **drawn)
    ours = corrupt(images, name, severity, fields=fields or None)[0].numpy()
    of_one = {field: values[0].numpy() for field, values in fields.items()}
    return ours, oracle(name)(image, CONSTANTS[SIZES[n]][name][severity - 1], of_one)


def sheet(name: str = "coffee", size: int = 224, side: int = 112) -> Image.Image:
    names = CORRUPTIONS + EXTRA_CORRUPTIONS
    image, textures = sample_image(name, size), load_frost()
    canvas = Image.new("RGB", (150 + 11 * side, 20 + len(names) * side), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((150, 4), "fastreg, severity 1 to 5", fill="black")
    draw.text((150 + 6 * side, 4), "the published code's libraries", fill="black")
    for row, name in enumerate(names):
        top = 20 + row * side
        draw.text((4, top + side // 2 - 12), f"{name}\n{ORACLES[name]}", fill="black")
        for severity in (1, 2, 3, 4, 5):
            for column, pixels in zip((0, 6), both := pair(name, severity, image, textures)):
                small = Image.fromarray(pixels).resize((side - 2, side - 2), Image.Resampling.BOX)
                canvas.paste(small, (150 + (column + severity - 1) * side, top))
            level, share = difference(*both)
            if level > 1:
                print(f"{name} {severity}: {level} levels apart, {share:.4f} % of the values differ")
    return canvas


if __name__ == "__main__":
    sheet(*sys.argv[2:3], *map(int, sys.argv[3:4])).save(sys.argv[1])
