"""A trained model as one file for other programs: safetensors, ONNX, or an exported program of torch (``.pt2``)."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastreg import runs
from fastreg.errors import InputError, RunError, extra, unknown
from fastreg.evaluation.load_model import load_run
from fastreg.files import replacing
from fastreg.models import Normalized

WEIGHTS = ("best", "last", "ema")
_TOLERANCE = 1e-3  # of float32 logits, relative to the largest: other programs add in another order


def export(
    run: str | Path | None = None,
    to: str = "safetensors",
    out: str | Path | None = None,
    *,
    weights: str = "best",
    normalize: bool = False,
    size: int | None = None,
    model: str | None = None,
    runs_root: str | Path = "runs",
) -> Path:
    """Write a run's model for other programs, read it back, and compare its logits with the run's.

    Args:
        run: a run folder or a checkpoint of fastreg; None: the newest run.
        to: "safetensors" (a state dict; metadata contain the model's name and arguments, classes, mean, std and size),
            "onnx" or "pt2" (the whole network for float32 images [N, 3, size, size] and any N from 1 on).
        out: the file; default: ``best.onnx`` and so on in the run's folder.
        weights: "best" (the best epoch, averaged if the run averages), "last" or "ema" (the last epoch's weights or
            their average).
        normalize: whether the network subtracts the mean and divides by the std itself, and so takes pixels in [0, 1].
        size: side of the images in pixels; default: the run's.
        model: the user's own model, for a run of it.
        runs_root: folder of run folders.

    Returns:
        The file.

    Raises:
        InputError: an unknown format, a run without these weights, or a package that is not installed.
        RunError: the file cannot be written, or gives other logits than the run. No file is left then.
    """
    if to not in FORMATS:
        raise unknown("`to`", to, FORMATS)
    if normalize and to == "safetensors":
        raise InputError("`normalize` is for onnx and pt2: a file of weights has no operations, only mean and std.")
    path = _checkpoint(runs.newest(runs_root) if run is None else Path(run), weights)
    net, config = load_run(path, average=weights == "ema", own=model)
    side = size or config["eval_size"]
    network = Normalized(net, config["mean"], config["std"]).eval() if normalize else net
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images)
    target = Path(out) if out is not None else path.with_name(f"{weights}.{to}")
    data, read_back = FORMATS[to](network, images, config)
    with replacing(target) as file:
        file.write(data)
        file.flush()
        found = read_back(Path(file.name))
        error = (found - expected).abs().max().item() / max(expected.abs().max().item(), 1e-6)
        if not error <= _TOLERANCE:
            raise RunError(
                f"the exported model's logits differ by {100 * error:.2g} % from the run's: no file is kept."
            )
    return target


def _checkpoint(path: Path, weights: str) -> Path:
    """The checkpoint that has the wanted weights. Raises InputError if there is none."""
    if weights not in WEIGHTS:
        raise unknown("`weights`", weights, WEIGHTS)
    if not path.is_dir():
        return runs.checkpoint_path(path)
    found = path / ("best.pt" if weights == "best" else "last.pt")
    if not found.is_file():
        raise InputError(f"{path} contains no {found.name}: it is not a run folder, or its run has not saved it yet.")
    return found


Exported = tuple[bytes, Callable[[Path], Tensor]]  # content of the file; reads a file and returns its logits


def _safetensors(network: nn.Module, images: Tensor, config: dict[str, Any]) -> Exported:
    try:
        from safetensors.torch import load_file, save
    except ImportError as error:
        raise InputError(
            "`to` safetensors needs safetensors, which is not installed: pip install safetensors."
        ) from error
    facts = {"format": "pt", "producer": "fastreg"}
    names = ("model", "stem", "model_args", "num_classes", "classes", "mean", "std", "eval_size")
    facts |= {name: json.dumps(config[name]) for name in names if name in config}

    def read_back(path: Path) -> Tensor:
        network.load_state_dict(load_file(path))
        with torch.no_grad():
            return network(images)

    return save({name: value.contiguous() for name, value in network.state_dict().items()}, facts), read_back


def _pt2(network: nn.Module, images: Tensor, config: dict[str, Any]) -> Exported:
    content = io.BytesIO()
    with _quiet():
        program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, content)

    def read_back(path: Path) -> Tensor:
        with torch.no_grad(), open(path, "rb") as file:
            return torch.export.load(io.BytesIO(file.read())).module()(images)

    return content.getvalue(), read_back


def _onnx(network: nn.Module, images: Tensor, config: dict[str, Any]) -> Exported:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise InputError(f"`to` onnx needs {error.name}, which is not installed: {extra('onnx')}.") from error
    with _quiet():
        program = torch.onnx.export(
            network,
            (images,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None

    def read_back(path: Path) -> Tensor:
        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return program.model_proto.SerializeToString(), read_back


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of the exporters, which are about torch's own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


FORMATS: dict[str, Callable[[nn.Module, Tensor, dict[str, Any]], Exported]] = {
    "safetensors": _safetensors,
    "onnx": _onnx,
    "pt2": _pt2,
}
