from __future__ import annotations

import math

import numpy as np
import pytest

from fastreg.kernels import philox
from fastreg.pipelines import crop


def published_law(u, height, width):
    """torchvision's random-resized crop, one image at a time, on given uniforms [tries, 4]."""
    for area_u, ratio_u, top_u, left_u in u:
        area = height * width * (0.08 + 0.92 * area_u)
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * ratio_u)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int((height - h + 1) * top_u), int((width - w + 1) * left_u), h, w
    ratio = width / height
    if ratio < 3 / 4:
        w, h = width, round(width / (3 / 4))
    elif ratio > 4 / 3:
        w, h = round(height * (4 / 3)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (64, 64), (30, 900), (900, 30), (1, 1), (7, 9)])
def test_boxes_follow_the_published_rule(height, width):
    indices = np.arange(200)
    boxes = crop.random_boxes(11, indices, 2, np.full(200, height), np.full(200, width))
    u = philox.uniform(philox.words(11, np.arange(10)[None], indices[:, None], 2, "crop")).astype(np.float64)
    assert [tuple(box) for box in boxes.tolist()] == [published_law(x, height, width) for x in u]
    top, left, h, w = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


def test_boxes_have_the_moments_of_the_rule():
    n = 20_000
    _, _, h, w = crop.random_boxes(0, np.arange(n), 0, np.full(n, 1000), np.full(n, 1000)).T
    area = h * w / 1e6
    assert area.min() >= 0.079
    assert (w / h).min() >= 0.75 - 0.01
    assert (w / h).max() <= 4 / 3 + 0.01
    assert abs(np.log(w / h).mean()) < 0.01
    assert 0.45 < area.mean() < 0.55  # below .54: large areas are more often refused


def test_a_box_belongs_to_its_sample_not_to_its_batch():
    sizes = np.array([[375, 500], [300, 200], [224, 224]])
    together = crop.random_boxes(1, np.array([5, 9, 2]), 3, sizes[:, 0], sizes[:, 1])
    for row, index in enumerate((5, 9, 2)):
        assert (crop.random_boxes(1, np.array([index]), 3, sizes[row, :1], sizes[row, 1:]) == together[row]).all()


def test_shifts_are_uniform_in_minus_four_to_four():
    boxes = crop.shift_boxes(0, np.arange(9000), 0, (32, 32))
    counts = [np.bincount(boxes[:, axis] + 4, minlength=9) for axis in (0, 1)]
    assert np.abs(np.array(counts) - 1000).max() < 150
    assert (boxes[:, 2:] == 32).all()


@pytest.mark.parametrize(
    ("height", "width", "expected"), [(375, 500, (256, 341)), (500, 375, (341, 256)), (300, 300, (256, 256))]
)
def test_the_evaluation_resize(height, width, expected):
    assert crop.resized(height, width, 224) == expected


def test_the_center_rounds_half_to_even():
    assert crop.center(256, 341, 224) == (16, 58)  # 58.5
    assert crop.center(257, 256, 224) == (16, 16)  # 16.5
