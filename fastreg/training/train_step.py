"""One training step, whoever calls it: a run's loop, or a benchmark.

bytes -> the recipe's colours -> one plan from the method -> one ``augment`` launch -> forward -> loss -> backward
-> update.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from fastreg.errors import InputError
from fastreg.kernels import Plan, augment, mixed_cross_entropy
from fastreg.models import Normalized, branch_layers, set_fields
from fastreg.training import setup
from fastreg.training.batchnorm import BatchNormStatistics
from fastreg.training.color_jitter import colouring
from fastreg.training.config import Config
from fastreg.training.schedule import learning_rate


class TrainStep:
    """Model, method and optimiser of one process.

    ``model`` is the bare model that is saved, ``net`` what a step calls (normalising, compiled, DDP), ``ema`` its
    moving average or None.
    """

    def __init__(self, config: Config, num_classes: int, mean: Sequence[float], std: Sequence[float], place: Any):
        if config.deterministic:
            # cuBLAS repeats its sums only with a fixed workspace, and torch refuses to multiply on CUDA without one
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(config.deterministic)  # of the whole process: the last engine's wish holds
        torch.backends.cudnn.benchmark = not config.deterministic
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.config, self.place, self.mean, self.std = config, place, mean, std
        self.precision = setup.resolve_precision(config.precision, place.device)
        self.dtype = setup.DTYPES[self.precision]
        self.method = setup.build_method(config)
        self.colour = colouring(jitter=config.color_jitter, lighting=config.lighting, seed=config.seed)
        self.mixing = True  # False after mixup_off_epoch: the method draws no plan, its model stays
        self.model_args = setup.model_arguments(config, self.method)
        self.model, self.net = setup.build_model(config, num_classes, place, self.model_args)
        self.layers = branch_layers(self.model)
        self.ema = copy.deepcopy(self.model).eval() if config.model_ema_decay else None
        self.statistics = BatchNormStatistics(self.model, config.grad_accum_steps, place.size)
        if self.method.pixels:  # the attack needs pixels, so normalisation moves into the model
            self.net = Normalized(self.net, mean, std)
        self.optimizer = setup.build_optimizer(config, self.model)
        # A CUDA graph of torch.compile writes gradients into memory that its next replay uses again. An accumulating
        # step must add them up elsewhere, or torch raises or sums wrongly (pytorch issues 169545 and 96693).
        self.keep_grads = config.torchcompile in ("reduce-overhead", "max-autotune") and config.grad_accum_steps > 1
        if self.keep_grads:
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter)
        self.scaler = torch.amp.GradScaler(place.device.type, enabled=self.precision == "fp16")

    def forward_backward(self, batch: Any, step: int, micro: int, size: int, epoch: int = 0) -> torch.Tensor:
        """One micro-batch at ``size`` pixels: gradients are added; returns its share of the step's loss.

        What belongs to the batch is drawn by ``step``, what belongs to a sample by ``epoch``, whatever the batch size.
        """
        config, method = self.config, self.method
        torch.manual_seed(micro_batch_seed(config.seed, step, self.place.rank * config.grad_accum_steps + micro))
        draw = method.draw if self.mixing or method.plain is None else method.plain
        plan, targets = draw(batch.labels, batch.indices, step, epoch=epoch, size=size)
        batch = self.colour(batch, epoch, size)
        if batch.crop is not None:
            plan = plan._replace(crop=batch.crop)
        mean, std = ((0.0,) * 3, (1.0,) * 3) if method.pixels else (self.mean, self.std)
        dtype = torch.float32 if method.pixels else self.dtype
        images = augment(
            batch.images,
            plan,
            mean=mean,
            std=std,
            dtype=dtype,
            size=size,
            seed=config.seed,
            indices=batch.indices,
            step=epoch,
        )
        if not config.channels_last:
            images = images.contiguous()  # else convolutions would hand on the layout in which augment writes
        if method.fields is not None:
            set_fields(
                self.model, method.fields(batch.indices, step, self.place.device, layers=self.layers, epoch=epoch)
            )
        self.statistics.start(micro)
        last = micro == config.grad_accum_steps - 1
        quiet = contextlib.nullcontext() if last or self.place.size == 1 else self._ddp().no_sync()
        with quiet:
            with torch.autocast(self.place.device.type, self.dtype, enabled=self.dtype != torch.float32):
                if method.step is None:
                    loss = self.loss(self.net(images), targets)
                else:
                    loss = method.step(
                        self.net, images, targets, self.loss, indices=batch.indices, step=step, epoch=epoch
                    )
            loss = loss / config.grad_accum_steps
            self.scaler.scale(loss).backward()
        self.statistics.end(micro)
        return loss

    def loss(self, logits: torch.Tensor, targets: Any) -> torch.Tensor:
        return mixed_cross_entropy(logits, targets, label_smoothing=self.config.ls)

    def update(self, step: int, steps: int) -> float:
        """One optimiser step at the schedule's rate for step ``step`` of ``steps``, which is returned."""
        lr = learning_rate(self.config, step, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.config.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=not self.keep_grads)
        if self.method.attacks:
            self.statistics.share()
        if self.ema is not None:
            _average(self.ema, self.model, self.config.model_ema_decay or 0.0)
        return lr

    def finite(self) -> bool:
        """Whether all weights are numbers. Waits for the device: ask before a checkpoint, not in a step."""
        largest = torch._foreach_norm([p.detach() for p in self.model.parameters()], math.inf)
        return bool(torch.stack(list(largest)).isfinite().all())

    def begin(self, source: Any) -> None:
        """Before a run's first step: show some training pictures to a model that computes a layer from them."""
        model: Any = self.model
        if not hasattr(model, "whiten"):
            return
        if source.canvas is None:
            raise InputError(f"--model {self.config.model} needs pictures of one size: train it on CIFAR.")
        pictures = torch.from_numpy(np.stack([source.read(i) for i in range(min(len(source), 1000))]))
        model.whiten(augment(pictures, Plan(), mean=self.mean, std=self.std, dtype=torch.float32))
        if self.place.size > 1:  # eigenvectors have no sign of their own: all processes take rank 0's
            dist.broadcast(model.whitening, src=0)
        if self.ema is not None:
            self.ema.load_state_dict(model.state_dict())

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's :meth:`state`, at the rates, decays and precision of this engine's own config."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"] or state["model"])  # an average that is new starts here
        own = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({**state["optimizer"], "param_groups": own})
        setup.start_momentum(self.optimizer)
        if state["scaler"]:  # empty where the run was not in fp16: a scaler that is new finds its scale itself
            self.scaler.load_state_dict(state["scaler"])

    def share_statistics(self) -> None:
        """Give every rank the mean running statistics, which are the ones that a checkpoint keeps."""
        self.statistics.share()
        if self.ema is not None:
            BatchNormStatistics(self.ema, 1, self.place.size).share()

    def _ddp(self) -> Any:
        net = self.net.model if isinstance(self.net, Normalized) else self.net
        return getattr(net, "_orig_mod", net)


def _average(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an average of all that a model has learnt: its weights, and the running statistics that belong to them."""
    pairs = [*zip(ema.parameters(), model.parameters()), *zip(ema.buffers(), model.buffers())]
    with torch.no_grad():
        real = [(a, b) for a, b in pairs if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in real], [b for _, b in real], 1 - decay)
        for a, b in pairs:
            if not a.is_floating_point():
                a.copy_(b)


def micro_batch_seed(seed: int, step: int, part: int) -> int:
    """The seed of torch's own generators in one micro-batch (dropout in models that have it)."""
    return (seed * 1_000_003 + step * 8191 + part) % (1 << 63)
