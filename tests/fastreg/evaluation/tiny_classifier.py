"""A tiny classifier and synthetic images that the evaluation and report tests share."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD

CLASSES = 6
MEAN, STD = IMAGENET_MEAN, IMAGENET_STD


def tiny_net(classes=CLASSES, seed=0):
    """A small convolutional net whose outputs depend on color and texture."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, classes),
    )
    with torch.no_grad():
        net[-1].weight *= 12
        net(torch.randn(32, 3, 32, 32))
    return net.eval()


def tiny_images(n=30, size=64, seed=0):
    """(uint8 [n, size, size, 3] of soft blobs, labels)"""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    fine = nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    labels = torch.randint(0, CLASSES, (n,), generator=generator)
    labels[0] = CLASSES - 1  # every class count is visible
    return (fine * 255).byte().permute(0, 2, 3, 1).contiguous(), labels


def to_pixels(images):
    """uint8 NHWC to float32 NCHW in [0, 1]"""
    return images.permute(0, 3, 1, 2).float() / 255


def small_arrays():
    """Labelled images, training images and a network of 32 px."""
    return tiny_images(60, size=32), tiny_images(120, size=32, seed=7), tiny_net()


def write_small(folder, n=9, seed=0):
    """Images of noise of 32 px in a folder of their own."""
    folder.mkdir(parents=True)
    for i, pixels in enumerate(np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
