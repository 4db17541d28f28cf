"""The evaluated model, as every suite calls it: uint8 images or float32 pixels in [0, 1] to logits."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fastreg.errors import InputError, RunError, unknown
from fastreg.evaluation.cuda_graph import CudaGraphForward
from fastreg.kernels import augment
from fastreg.kernels.types import Plan

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
STORED = {torch.float64: "fp64", torch.float16: "fp16", torch.bfloat16: "bf16"}


class EvalModel(nn.Module):
    """A model with its normalization as the first layer: float32 pixels [B, 3, h, w] in [0, 1] to float32 logits.

    The model's input is always ``dtype``, for pixels and for normalized images, so figures do not depend on which of
    the two came first. ``mixed`` runs a float32 model under autocast. ``pad_to`` images go through the model if the
    pixels are fewer.
    """

    mean: Tensor
    std: Tensor
    columns: Tensor | None

    def __init__(
        self,
        net: Any,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype,
        columns: Tensor | None = None,
        mixed: bool = True,
        every: bool = False,
    ):
        super().__init__()
        self.outputs = self.pad_to = 0
        self.net, self.dtype, self.mixed = net, dtype, mixed and dtype != torch.float32
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("columns", None, persistent=False)
        self.select(columns, every)

    def select(self, columns: Tensor | None, every: bool = False) -> None:
        """Set the outputs that belong to the data's classes, in their order; ``every``: the others follow them."""
        self.every, self.needed = every, int(columns.max()) + 1 if columns is not None else 0
        self.columns = columns.to(self.mean.device) if columns is not None else None

    def train(self, mode: bool = True) -> EvalModel:
        """Set the mode of this module only: the caller owns the model's mode, and exported programs have none."""
        self.training = mode
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        n = len(pixels)
        if 0 < n < self.pad_to:  # part of a batch, of a restart for example
            pixels = torch.cat((pixels, pixels[-1:].expand(self.pad_to - n, -1, -1, -1)))
        return self.logits(self.normalize(pixels))[:n]

    def normalize(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.std

    def logits(self, x: Tensor, net: Any = None) -> Tensor:
        """Logits of an input that is normalized already; ``net``: the model in another form."""
        x = x.to(self.dtype)
        with torch.autocast(x.device.type, self.dtype, enabled=self.mixed):
            logits = (self.net if net is None else net)(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x) or logits.is_complex():
            kind = (
                f"{str(logits.dtype)[6:]} {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            )
            raise InputError(
                f"the model returns {kind} for {len(x)} images: "
                f"a classifier returns one tensor of logits [batch, classes]."
            )
        if logits.shape[1] < self.needed:
            raise InputError(
                f"the model has {logits.shape[1]} classes but the data's go up to number {self.needed - 1}."
            )
        self.outputs = logits.shape[1]
        if self.every and self.columns is not None and len(self.columns) < self.outputs:
            rest = sorted(set(range(self.outputs)) - set(self.columns.tolist()))  # once, at the first call
            self.columns = torch.cat((self.columns, torch.tensor(rest, device=self.columns.device)))
        return (logits if self.columns is None else logits[:, self.columns]).float()


class Classifier:
    """``images(...)`` and ``pixels(...)`` give float32 logits [B, K]; K is the data set's number of classes.

    Args:
        model: changed by ``to`` and ``float``; :func:`borrowed` restores it.
        mean, std: normalization on the [0, 1] scale; None: the model takes pixels in [0, 1].
        device: where it runs.
        precision: see :func:`precision_of`.
        columns: int64 [K], selects and orders the model's outputs if the data has only some of its classes.
        every: keep the model's other outputs too, after those of ``columns``.
        compiled: run torch.compile's graph. Otherwise, on a GPU and with a ``batch_size``, the forward pass is captured
            and replayed (``cuda_graph.py``). Both pad the last batch to ``batch_size``.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        device: torch.device,
        precision: str,
        columns: Tensor | None = None,
        every: bool = False,
        compiled: bool = False,
        batch_size: int = 0,
    ):
        self.mean, self.std = tuple(mean or (0.0, 0.0, 0.0)), tuple(std or (1.0, 1.0, 1.0))
        self.precision, own_dtype = precision_of(model, precision)
        self.dtype, self.device, self.columns = own_dtype or DTYPES[self.precision], device, columns
        self.digest = digest(model)
        model.to(device)
        if own_dtype is None and len(dtypes_of(model)) == 1:
            model.float()  # a model with layers of several types stays as it is: autocast brings them together
        # the memory format of the pixels: no layer changes the layout, on a GPU or a CPU
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch_size, self.pad_to = batch_size, batch_size if compiled else 0
        net = torch.compile(model) if compiled else model
        self.module = EvalModel(net, self.mean, self.std, self.dtype, columns, own_dtype is None, every)
        self.module.to(device).eval()
        self._whole: Classifier | None = None
        self.replayed: CudaGraphForward | None = None
        if device.type == "cuda" and batch_size and not compiled:
            self.replayed, self.pad_to = CudaGraphForward(self.module.logits, batch_size), batch_size

    def images(self, images: Tensor, plan: Plan | None = None) -> Tensor:
        """Logits of uint8 [B, S, S, 3]; one launch normalizes (and occludes) them."""
        return self._logits(self.normalized(images, plan))

    def normalized(self, images: Tensor, plan: Plan | None = None) -> Tensor:
        """The model's input [B, 3, S, S] of uint8 [B, S, S, 3]."""
        dtype = self.dtype if self.dtype != torch.float64 else torch.float32
        return augment(images, plan or Plan(), mean=self.mean, std=self.std, dtype=dtype)

    def every_output(self) -> Classifier:
        """The same model with all its outputs in their own order, whatever the data's classes are."""
        if self.module.columns is None:
            return self
        if self._whole is None:
            whole = copy.copy(self)
            own = (self.module.net, self.mean, self.std, self.module.dtype)
            whole.module = EvalModel(*own, mixed=self.module.mixed).to(self.device).eval()
            whole.module.pad_to = self.module.pad_to
            if self.replayed is not None:
                whole.replayed = CudaGraphForward(whole.module.logits, self.batch_size)
            self._whole = whole
        return self._whole

    def pixels(self, pixels: Tensor) -> Tensor:
        """Logits of float32 [B, 3, S, S] in [0, 1]."""
        return self._logits(self.module.normalize(pixels))

    def _logits(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            run = self.replayed or self.module.logits
            return run(self.padded(x.to(self.dtype)))[: len(x)]

    def padded(self, x: Tensor) -> Tensor:
        """[B, ...] with its last row repeated up to the batch size where one shape is compiled or captured."""
        if len(x) >= self.pad_to:
            return x
        full = torch.empty_strided((self.pad_to, *x.shape[1:]), x.stride(), dtype=x.dtype, device=x.device)
        full[: len(x)], full[len(x) :] = x, x[-1]  # in x's memory order: another one would be compiled anew
        return full

    def outputs(self, size: int) -> int:
        """The number of outputs, probed with two black images (with one, a missing batch dimension would go unnoticed).

        Batches are padded from then on for a model that takes batches of ``batch_size`` only, as exported programs may.
        Calls the model without a CUDA graph, which would keep the columns of now.

        Raises InputError where the model fails: it may be made for another size.
        """
        replayed, self.replayed = self.replayed, None
        self.pad_to = 0 if replayed else self.pad_to
        try:
            return self._outputs(size)
        finally:
            self.module.pad_to = self.pad_to  # attacks call the module with parts of a batch
            self.replayed, self.pad_to = replayed, self.batch_size if replayed else self.pad_to

    def _outputs(self, size: int) -> int:
        try:
            found = self._try(2, size)
        except InputError as first:
            raised = first.__cause__ is not None  # by the model; otherwise its output is no batch of logits
            if not raised or self.pad_to or self.batch_size <= 2:
                raise
            self.pad_to = self.batch_size
            try:
                return self._try(2, size)
            except InputError:
                raise first from None
        if not self.pad_to:
            try:
                self._try(3, size)
            except InputError as error:
                if error.__cause__ is None:
                    raise
                if self.batch_size != 2:
                    raise InputError(
                        f"{str(error).partition(': it gets')[0]}, but not on two: give 2 as `batch_size`."
                    ) from error
                self.pad_to = 2
        return found

    def _try(self, n: int, size: int) -> int:
        black = torch.zeros(n, size, size, 3, dtype=torch.uint8, device=self.device)
        try:
            return self.images(black).shape[1]
        except (InputError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:  # a model may do anything
            why = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"the model fails on images of {size} px ({type(error).__name__}: {why}): it gets [batch, 3, {size}, "
                f"{size}]; if it was made for another size, give that as `size`, and if for one number of images, give "
                f"that as `batch_size`."
            ) from error


@contextlib.contextmanager
def borrowed(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, which may be moved and converted; modes, memory and gradients are restored afterwards.

    The original tensors are kept and restored, so nothing is copied twice and each tensor returns to its device.
    """
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    learning = [(p, p.requires_grad) for p in model.parameters() if not is_lazy(p)]
    tensors = [t for p, _ in learning for t in (p, p.grad) if t is not None]
    memory = [(t, t.data) for t in tensors]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    if modes:  # frozen TorchScript has none
        with contextlib.suppress(NotImplementedError):  # nor do exported programs
            model.eval()
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise RunError("the GPU ran out of memory: give a smaller `batch_size`.") from error
    finally:
        for module, training in modes:
            module.training = training
        for parameter, learns in learning:
            parameter.requires_grad_(learns)
        for tensor, data in memory:
            tensor.data = data
        for module, own in buffers:
            for name, buffer in own.items():
                module._buffers[name] = buffer


def precision_of(model: nn.Module, asked: str = "fp32") -> tuple[str, torch.dtype | None]:
    """The precision in which a model runs.

    Args:
        model: may be stored in float32, in another type as a whole, or in several types.
        asked: "fp32" (or "auto", which means the same), "bf16" or "fp16".

    Returns:
        ``(name, dtype)``. ``dtype`` None: a float32 model or copy, under autocast for bf16 and fp16. Otherwise the type
        in which the model is stored and runs: float64, or the requested half precision.

    Raises:
        InputError: an unknown precision, or one that the model cannot have.
    """
    if asked not in ("auto", *DTYPES):
        raise unknown("`precision`", asked, ("auto", *DTYPES))
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise InputError("the model has lazy parameters without values: call it once on images before the evaluation.")
    kinds = dtypes_of(model)
    stored = next(iter(kinds)) if len(kinds) == 1 else None
    name = "fp32" if asked == "auto" else asked
    if stored == torch.float64 and name == "fp32":
        return "fp64", stored  # a float64 model is not reduced to float32
    mixed_in_fp32 = stored is None and name == "fp32"
    if mixed_in_fp32 or stored == torch.float64 or not kinds <= {torch.float32, *STORED}:
        found = " and ".join(sorted(str(kind)[6:] for kind in kinds))
        raise InputError(f"the model is stored in {found} and cannot run in {asked}: evaluate model.float() instead.")
    return name, (stored if stored in STORED and STORED[stored] == name else None)


def dtypes_of(model: nn.Module) -> set[torch.dtype]:
    """The float types of the parameters and buffers; float32 for a model without any."""
    return {t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()} or {torch.float32}


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's first parameter or buffer; the CPU for a model without any."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def digest(model: nn.Module) -> str:
    """12 hex digits of a model's structure, parameters and buffers, which identify the model of a result."""
    seen = hashlib.sha256(repr(model).encode())
    for name, value in model.state_dict().items():
        seen.update(name.encode())
        if isinstance(value, Tensor):
            seen.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return seen.hexdigest()[:12]
