"""Independent oracles: each corruption by the libraries that the published code calls, on one image.

scipy for Gaussian filters and zooms, scikit-image for HSV, OpenCV for discs, warps and spatter, Pillow for BOX and
JPEG, ImageMagick through Wand for motion blur, plain loops for glass. ``oracle(name)(x, p, f)`` takes a uint8 [n,n,3]
array, the severity's constants and a dict of random fields; it returns uint8.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import color


def _done(x):
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)


def _blur(x, sigma):
    sigmas = (sigma, sigma, 0) if x.ndim == 3 else sigma
    return ndimage.gaussian_filter(x, sigmas, mode="nearest", truncate=4.0)


def gaussian_noise(x, p, f):
    return _done(x / 255.0 + p * f["normal"].astype(float))


def speckle_noise(x, p, f):
    x = x / 255.0
    return _done(x + x * (p * f["normal"].astype(float)))


def shot_noise(x, p, f):
    return _done(f["counts"] / float(p))


def impulse_noise(x, p, f):
    return _done(np.where(f["replace"], f["salt"].astype(float), x / 255.0))


def gaussian_blur(x, p, f):
    return _done(_blur(x / 255.0, p))


def defocus_blur(x, p, f):
    radius, soft = p
    line = np.arange(-8, 9) if radius <= 8 else np.arange(-radius, radius + 1)
    across, down = np.meshgrid(line, line)
    kernel = np.array(across**2 + down**2 <= radius**2, np.float32)
    kernel /= kernel.sum()
    taps = (3, 3) if radius <= 8 else (5, 5)
    kernel = cv2.GaussianBlur(kernel, ksize=taps, sigmaX=soft)
    return _done(np.dstack([cv2.filter2D(np.ascontiguousarray(x[..., c] / 255.0), -1, kernel) for c in range(3)]))


def glass_blur(x, p, f):
    sigma, reach, passes = p
    n = len(x)
    u = (_blur(x / 255.0, sigma) * 255).astype(np.uint8)
    for turn in range(passes):
        for h in range(n - reach, reach, -1):
            for w in range(n - reach, reach, -1):
                u[h, w] = u[h + f["dy"][turn, h, w], w + f["dx"][turn, h, w]]
    return _done(_blur(u / 255.0, sigma))


def _magick(x, radius, sigma, angle):
    """ImageMagick's motion blur by way of PNG, as published."""
    from wand.api import library
    from wand.image import Image as MagickImage

    buffer = io.BytesIO()
    Image.fromarray(x).save(buffer, "PNG")
    with MagickImage(blob=buffer.getvalue()) as image:
        library.MagickMotionBlurImage(image.wand, radius, sigma, angle)
        image.format = "PNG"
        return np.asarray(Image.open(io.BytesIO(image.make_blob())).convert("L" if x.ndim == 2 else "RGB"))


def motion_blur(x, p, f):
    return _magick(x, p[0], p[1], float(f["angle"]))


def _zoom(x, z):
    n = len(x)
    side = int(np.ceil(n / z))
    top = (n - side) // 2
    big = ndimage.zoom(x[top : top + side, top : top + side], (z, z, 1), order=1)
    trim = (len(big) - n) // 2
    return big[trim : trim + n, trim : trim + n]


def zoom_blur(x, p, f):
    x = (x / 255.0).astype(np.float32)
    zooms = np.arange(1, p[0], p[1])
    total = np.zeros_like(x)
    for z in zooms:
        total += _zoom(x, z)
    return _done((x + total) / (len(zooms) + 1))


def snow(x, p, f):
    mean, std, z, threshold, radius, sigma, weight = p
    layer = _zoom((mean + std * f["normal"].astype(float))[..., None], z)[..., 0]
    layer[layer < threshold] = 0
    layer = _magick((np.clip(layer, 0, 1) * 255).astype(np.uint8), radius, sigma, float(f["angle"]))[..., None] / 255.0
    x = np.float32(x) / 255.0
    gray = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None]
    x = weight * x + (1 - weight) * np.maximum(x, gray * 1.5 + 0.5)
    return _done(x + layer + np.rot90(layer, k=2))


def frost(x, p, f):
    return np.clip(p[0] * x + p[1] * f["texture"], 0, 255).astype(np.uint8)


def fog(x, p, f):
    x = x / 255.0
    peak = x.max()
    return _done((x + p[0] * f["plasma"].astype(float)[..., None]) * peak / (peak + p[0]))


def plasma_loops(uniform, decay):
    """Diamond-square by loops over pixels, on a periodic map."""
    n = len(uniform)
    height = np.zeros((n, n))
    step, amplitude = n, 100.0
    while step > 1:
        half = step // 2

        def put(y, x, neighbors, height=height, amplitude=amplitude):
            height[y, x] = sum(height[a % n, b % n] for a, b in neighbors) / 4 + amplitude**2 * uniform[y, x]

        places = [(y, x) for y in range(0, n, step) for x in range(0, n, step)]
        for y, x in places:
            put(y + half, x + half, [(y, x), (y + step, x), (y, x + step), (y + step, x + step)])
        for y, x in places:
            put(y, x + half, [(y, x), (y, x + step), (y + half, x + half), (y - half, x + half)])
            put(y + half, x, [(y, x), (y + step, x), (y + half, x + half), (y + half, x - half)])
        step, amplitude = half, amplitude / decay
    height -= height.min()
    return height / height.max()


def brightness(x, p, f):
    hsv = color.rgb2hsv(x / 255.0)
    hsv[..., 2] = np.clip(hsv[..., 2] + p, 0, 1)
    return _done(color.hsv2rgb(hsv))


def saturate(x, p, f):
    hsv = color.rgb2hsv(x / 255.0)
    hsv[..., 1] = np.clip(hsv[..., 1] * p[0] + p[1], 0, 1)
    return _done(color.hsv2rgb(hsv))


def contrast(x, p, f):
    x = x / 255.0
    mean = np.mean(x, axis=(0, 1), keepdims=True)
    return _done((x - mean) * p + mean)


def elastic_transform(x, p, f):
    alpha, sigma, _ = p
    n = len(x)
    x = np.float32(x) / 255.0
    c, q = n // 2, n // 3
    here = np.float32([(c + q, c + q), (c + q, c - q), (c - q, c - q)])
    matrix = cv2.getAffineTransform(here, here + f["corner_shift"].astype(np.float32))
    x = cv2.warpAffine(x, matrix, (n, n), borderMode=cv2.BORDER_REFLECT_101)
    shift = {}
    for axis in ("dx", "dy"):
        smooth = ndimage.gaussian_filter(f[axis].astype(float), sigma, mode="reflect", truncate=3)
        shift[axis] = (smooth * alpha).astype(np.float32)
    columns, rows = np.meshgrid(np.arange(n), np.arange(n))
    place = (rows + shift["dy"], columns + shift["dx"])
    return _done(np.dstack([ndimage.map_coordinates(x[..., c], place, order=1, mode="reflect") for c in range(3)]))


def pixelate(x, p, f):
    n = len(x)
    small = Image.fromarray(x).resize((int(n * p), int(n * p)), Image.Resampling.BOX)
    return np.asarray(small.resize((n, n), Image.Resampling.BOX))


def jpeg_compression(x, p, f):
    buffer = io.BytesIO()
    Image.fromarray(x).save(buffer, "JPEG", quality=p)
    return np.asarray(Image.open(buffer))


def spatter(x, p, f):
    mean, std, sigma, threshold, strength, mud = p
    x = np.float32(x) / 255.0
    layer = _blur(mean + std * f["normal"].astype(float), sigma)
    layer[layer < threshold] = 0
    if mud:
        cover = _blur((layer > threshold).astype(np.float32), strength)
        cover[cover < 0.8] = 0
        cover = cover[..., None]
        return _done(x * (1 - cover) + cover * np.array((63, 42, 20)) / 255.0)
    layer = (layer * 255).astype(np.uint8)
    distance = cv2.distanceTransform(255 - cv2.Canny(layer, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.threshold(distance, 20, 20, cv2.THRESH_TRUNC)[1]
    distance = cv2.equalizeHist(cv2.blur(distance, (3, 3)).astype(np.uint8))
    distance = cv2.filter2D(distance, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    wet = layer * cv2.blur(distance, (3, 3)).astype(np.float32)
    wet = wet / wet.max() * strength
    return _done(x + wet[..., None] * np.array((175, 238, 238)) / 255.0)


ORACLES = {  # name -> libraries
    "gaussian_noise": "numpy",
    "shot_noise": "numpy",
    "impulse_noise": "numpy",
    "defocus_blur": "OpenCV",
    "glass_blur": "scipy, loops",
    "motion_blur": "ImageMagick",
    "zoom_blur": "scipy",
    "snow": "scipy, ImageMagick, OpenCV",
    "frost": "numpy",
    "fog": "numpy",
    "brightness": "scikit-image",
    "contrast": "numpy",
    "elastic_transform": "OpenCV, scipy",
    "pixelate": "Pillow",
    "jpeg_compression": "Pillow",
    "speckle_noise": "numpy",
    "gaussian_blur": "scipy",
    "spatter": "scipy, OpenCV",
    "saturate": "scikit-image",
}


def oracle(name):
    return globals()[name]
