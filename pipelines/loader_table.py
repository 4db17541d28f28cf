"""The loaders, one row each: the sources that it reads, its decoder, and the package that it needs.

``make_loader``, the ``auto`` choice, evaluation, the command line's help, ``fastreg doctor``, the benchmarks and the
tests read this table. The module imports neither torch nor numpy, because the help is made from it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

from fastreg.errors import extra

# How a source stores its samples (``Source.form``), in words for messages.
FORMS = {
    "arrays": "small arrays in memory",
    "canvases": ".beton files of raw images of one size",
    "beton": ".beton files of many sizes",
    "images": "encoded image files",
}
ALL = tuple(FORMS)
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")  # of the evaluation resize, as Pillow names them


class LoaderSpec(NamedTuple):
    """One loader.

    Attributes:
        name: The value of ``loader`` that selects it.
        decoder: ``"module:attribute"`` of its decoder, which is called as ``decoder(source, settings)``.
        about: One clause for help texts.
        trains_on: The forms (keys of ``FORMS``) that it reads for training.
        evaluates_on: The forms that it reads for evaluation.
        interpolations: The interpolations that it has for the evaluation resize.
        real: Whether its batches are the data's images; ``evaluate`` refuses other loaders.
        auto_for: The forms for which ``loader="auto"`` prefers it.
        auto_device: The device type that this preference needs, such as ``"cuda"``; empty: any.
        auto_reason: Why it is preferred, one clause.
        title: Name of the required package, as ``fastreg doctor`` prints it.
        package: Import name of that package; empty: no package is required.
        distributions: Names of that package on PyPI, any of which provides it.
        extra: The extra of fastreg that installs it.
        extra_cuda12: The extra that installs it beside a torch for CUDA 12.
        system: A command that installs system libraries first.
    """

    name: str
    decoder: str
    about: str
    trains_on: tuple[str, ...] = ALL
    evaluates_on: tuple[str, ...] = ALL
    interpolations: tuple[str, ...] = ("bilinear",)
    real: bool = True
    auto_for: tuple[str, ...] = ()
    auto_device: str = ""
    auto_reason: str = ""
    title: str = ""
    package: str = ""
    distributions: tuple[str, ...] = ()
    extra: str = ""
    extra_cuda12: str = ""
    system: str = ""

    def resizes_by(self, interpolation: str, form: str) -> bool:
        return interpolation in self.interpolations or form == "arrays"  # arrays are not resized

    def reads(self, form: str, train: bool) -> bool:
        return form in (self.trains_on if train else self.evaluates_on)

    @property
    def is_installed(self) -> bool:
        """Whether the package can be found; it is not imported."""
        try:
            return not self.package or importlib.util.find_spec(self.package) is not None
        except ModuleNotFoundError:  # of the package's own parent
            return False

    def install_command(self, cuda: str | None = None) -> str:
        """The command that installs the package beside a torch built for that version of CUDA."""
        name = self.extra_cuda12 if self.extra_cuda12 and (cuda or "").startswith("12") else self.extra
        return " && ".join(filter(None, (self.system, extra(name))))

    def load(self) -> Callable[..., Any]:
        """Import the decoder."""
        module, _, attribute = self.decoder.partition(":")
        return getattr(importlib.import_module(module), attribute)


LOADERS: dict[str, LoaderSpec] = {
    spec.name: spec
    for spec in (
        LoaderSpec(
            "folder",
            "fastreg.pipelines.decode_pillow:folder_decoder",
            "Pillow's pixels, decoded in threads",
            interpolations=INTERPOLATIONS,
        ),
        LoaderSpec(
            "dali",
            "fastreg.pipelines.decode_dali:DaliDecoder",
            "NVIDIA DALI, which decodes on the GPU",
            trains_on=("canvases", "beton", "images"),
            evaluates_on=("canvases", "beton", "images"),
            auto_for=("beton", "images"),
            auto_device="cuda",
            auto_reason="a GPU decodes the JPEG files",
            title="DALI",
            package="nvidia.dali",
            distributions=("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
            extra="dali",
            extra_cuda12="dali-cuda12",
        ),
        LoaderSpec(
            "ffcv",
            "fastreg.pipelines.decode_ffcv:ffcv_decoder",
            ".beton files, decoded by FFCV's C routines",
            trains_on=("canvases", "beton"),
            evaluates_on=("canvases", "beton"),
            title="FFCV",
            package="ffcv",
            distributions=("ffcv",),
            extra="ffcv",
            system="apt-get install build-essential pkg-config python3-dev libopencv-dev libturbojpeg0-dev",
        ),
        LoaderSpec(
            "resident",
            "fastreg.pipelines.decode_resident:ResidentDecoder",
            "the whole set in the memory of the device",
            trains_on=("arrays", "canvases"),
            interpolations=INTERPOLATIONS,
            auto_for=("arrays",),
            auto_reason="small arrays fit in the memory of the device",
        ),
        LoaderSpec(
            "synthetic",
            "fastreg.pipelines.decode_synthetic:SyntheticDecoder",
            "noise instead of images, for benchmarks",
            real=False,
        ),
    )
}


def loader_names(evaluation: bool = False) -> tuple[str, ...]:
    """The values that ``loader`` may have: ``"auto"``, and the loaders, or those with which ``evaluate`` works."""
    return ("auto", *(name for name, spec in LOADERS.items() if spec.real or not evaluation))


def loader_help(evaluation: bool = False) -> str:
    """These values as one clause: "auto, folder, dali, ffcv or resident"."""
    *most, last = loader_names(evaluation)
    return f"{', '.join(most)} or {last}"
