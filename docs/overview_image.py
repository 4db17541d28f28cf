"""The image of the README: methods in the first row, corruptions in the second. ``python docs/overview_image.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from fastreg.kernels import Batch, augment, corrupt
from fastreg.kernels.modules import IMAGENET_MEAN, IMAGENET_STD
from fastreg.methods import create_method
from fastreg.pipelines import load_frost

SIDE, LABEL, GAP = 200, 26, 6
METHODS = ("none", "mixup", "cutmix", "cutout", "gaussian_noise", "random_erasing")
CORRUPTED = ("shot_noise", "motion_blur", "frost", "fog", "elastic_transform", "jpeg_compression")
SEEDS = {"mixup": 32, "cutmix": 3, "gaussian_noise": 21, "random_erasing": 8}  # draws that show the method well


def example_images() -> Batch:
    """scikit-image's chelsea and coffee (public domain), square."""
    squares = (data.chelsea()[:, 75:375], data.coffee()[:, 100:500])
    pixels = [np.asarray(Image.fromarray(one).resize((224, 224), Image.Resampling.BICUBIC)) for one in squares]
    images = torch.from_numpy(np.stack(pixels))
    return Batch(images, torch.arange(2), torch.arange(2))


def augmented(batch: Batch, name: str) -> np.ndarray:
    """The first image of the batch under a method, as bytes."""
    parameters = {"prob": 1.0} if name in ("cutmix", "random_erasing") else {}
    method = create_method(name, seed=SEEDS.get(name, 0), scope="sample", **parameters)
    plan, _ = method.draw(batch.labels, batch.indices, 0, size=(224, 224))
    if name != "none":
        plan = plan._replace(flip=None)
    out = augment(batch.images, plan, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=torch.float32)[0]
    out = out * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]
    return (255 * out.clamp(0, 1)).round().to(torch.uint8).permute(1, 2, 0).numpy()


def main() -> None:
    batch = example_images()
    rows = [
        [(name.replace("_", " "), augmented(batch, name)) for name in METHODS],
        [
            (
                name.replace("_", " "),
                corrupt(batch.images, name, 4, indices=batch.indices, textures=load_frost())[0].numpy(),
            )
            for name in CORRUPTED
        ],
    ]
    rows[0][0] = ("original", batch.images[0].numpy())
    width = len(METHODS) * (SIDE + GAP) - GAP
    sheet = Image.new("RGB", (width, 2 * (SIDE + LABEL)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for i, row in enumerate(rows):
        for j, (label, pixels) in enumerate(row):
            x, y = j * (SIDE + GAP), i * (SIDE + LABEL)
            pen.text((x + SIDE / 2, y + LABEL / 2), label, fill="black", font=font, anchor="mm")
            sheet.paste(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y + LABEL))
    sheet.save(Path(__file__).with_name("overview.jpg"), quality=85, optimize=True)


if __name__ == "__main__":
    main()
