"""One training step of one rank, for the training loop and for benchmarks.

Batch -> color jitter -> plan of the method -> ``augment`` (one launch, and more with automatic augmentation) -> forward
-> loss -> backward -> update.

A step needs the switches of :func:`fastreg.training.setup.training_switches`, and sets none itself.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from fastreg.distributed import World
from fastreg.environment import bf16_instructions
from fastreg.errors import InputError
from fastreg.kernels import Batch, Plan, augment
from fastreg.kernels.augmentation.operations import fill_levels
from fastreg.log import log
from fastreg.methods.join import plan_and_targets
from fastreg.models import Normalized, branch_layers, set_fields
from fastreg.pipelines import Source
from fastreg.training import color_jitter, optimizer, setup
from fastreg.training.batchnorm import BatchNormStatistics
from fastreg.training.color_jitter import make_color_jitter, make_unclipped_augment
from fastreg.training.compiling import GRAPHS, resolve_torchcompile
from fastreg.training.config import Config
from fastreg.training.draws import Draws
from fastreg.training.initial_weights import load_initial_weights
from fastreg.training.loss import make_loss
from fastreg.training.schedule import average_decay, learning_rate

_WHITENED = 1000  # images from which a model computes its whitening layer


class TrainStep:
    """Model, method and optimizer of one rank.

    Attributes:
        model: the bare model, which is saved.
        loss: the mean loss of a batch, from logits and targets.
        net: the module that a step calls: ``model`` compiled, in DDP, with normalization for methods on pixels.
        ema: the moving average of ``model``, or None.
        mixing: False after ``mixup_off_epoch``: the method draws by ``plain``; its model stays.

    Args:
        config: settings of the run.
        num_classes: outputs of the model.
        mean: per channel, on the 0-1 scale.
        std: per channel, on the 0-1 scale.
        world: this rank.
        steps: steps of the whole run; None: unknown. ``torchcompile`` "auto" depends on them.
        class_weight: float32 [C], the weights of the classes in the loss, or None.

    Raises:
        InputError: an unknown model, or data that the method needs are missing.
    """

    def __init__(
        self,
        config: Config,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
        world: World,
        steps: int | None = None,
        class_weight: torch.Tensor | None = None,
    ) -> None:
        self.config, self.world, self.mean, self.std = config, world, mean, std
        self.precision = setup.resolve_precision(config.precision, world.device)
        setup.warn_about_bf16(self.precision, world, bf16_instructions())
        self.dtype = setup.DTYPES[self.precision]
        self.method = setup.build_method(config)
        colors: dict[str, Any] = {"jitter": config.color_jitter, "lighting": config.lighting, "seed": config.seed}
        draw_colors = partial(color_jitter.draw, **colors) if config.color_jitter or config.lighting else None
        self.augment: Callable[..., torch.Tensor] = augment
        if not config.color_clip and (config.color_jitter or config.lighting):
            if self.method.pixels:
                name = self.method.name
                raise InputError(
                    f"`color_clip` off gives pixels outside [0, 1], which {name} does not take: turn it on."
                )
            self.augment = make_unclipped_augment(**colors)
            colors |= {"jitter": 0.0, "lighting": 0.0}
        self.jitter_colors = make_color_jitter(**colors)
        if self.method.networks is not None:
            self.method.networks.start(world.device)
        self.loss = make_loss(config, None if class_weight is None else class_weight.to(world.device))
        self.mixing = True
        self.model_args = setup.model_arguments(config, self.method)
        self.compile_mode = resolve_torchcompile(config, self.method, world, steps)
        self.model, self.net = setup.build_model(config, num_classes, world, self.model_args, self.compile_mode)
        self.draws = Draws(self.method, branch_layers(self.model), draw_colors, world.device)
        self.ema = copy.deepcopy(self.model).eval() if config.model_ema_decay else None
        self.batchnorm = BatchNormStatistics(self.model, config.grad_accum_steps, world.size)
        if self.method.pixels:  # attacks change pixels in [0, 1], so the module that they call normalizes
            self.net = Normalized(self.net, mean, std).to(world.device)
        self.optimizer = optimizer.build_optimizer(config, self.model)
        # A CUDA graph of torch.compile writes gradients into memory that its next replay reuses. Accumulated gradients
        # must be in other memory, or torch raises or sums wrongly (pytorch issues 169545 and 96693).
        self.keep_grads = self.compile_mode in GRAPHS and config.grad_accum_steps > 1
        if self.keep_grads:
            for parameter in filter(lambda one: one.requires_grad, self.model.parameters()):
                parameter.grad = torch.zeros_like(parameter)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.precision == "fp16")

    def expect(self, keys: Sequence[np.ndarray], step: int, epoch: int, size: int) -> None:
        """Name the ``Batch.keys`` of the micro-batches to come, from step ``step`` on; they are then drawn together."""
        self.draws.expect(keys, step, self.config.grad_accum_steps, epoch, size, self.mixing)

    def forward_backward(
        self, batch: Batch, step: int, micro: int, size: int, epoch: int = 0, share: float | None = None
    ) -> torch.Tensor:
        """Add the gradients of one micro-batch.

        Args:
            batch: images, labels and indices of the micro-batch.
            step: number of the step, from 0; the key of draws per batch.
            micro: number of the micro-batch in the step, from 0.
            size: side of the training images in pixels.
            epoch: number of the epoch, from 0; the key of draws per sample.
            share: weight of the micro-batch in this rank's loss; None: 1 / ``grad_accum_steps``.

        Returns:
            The micro-batch's share of the step's loss, a scalar on the device.
        """
        config, method = self.config, self.method
        torch.manual_seed(micro_batch_seed(config.seed, step, self.world.rank * config.grad_accum_steps + micro))
        drawn = self.draws.take(batch.keys, step, micro, epoch, size, self.mixing)
        plan, targets = plan_and_targets(drawn["plan"], batch.labels)
        batch = self.jitter_colors(batch, epoch, size, drawn.get("colors"))
        if batch.crop is not None:
            plan = plan._replace(crop=batch.crop)
        mean, std = ((0.0,) * 3, (1.0,) * 3) if method.pixels else (self.mean, self.std)
        dtype = torch.float32 if method.pixels else self.dtype
        images = self.augment(
            batch.images,
            plan,
            mean=mean,
            std=std,
            dtype=dtype,
            size=size,
            seed=config.seed,
            indices=batch.keys,
            step=epoch,
            fill=fill_levels(method.fill, self.mean),
            **({} if self.augment is augment else {"drawn": drawn["colors"]}),
        )
        if not config.channels_last:
            images = images.contiguous()  # convolutions would keep the channels_last layout of augment
        set_fields(self.model, drawn.get("fields", {}))
        self.batchnorm.start(micro)
        last = micro == config.grad_accum_steps - 1
        no_sync = contextlib.nullcontext() if last or self.world.size == 1 else self._ddp().no_sync()
        with no_sync:
            with torch.autocast(self.world.device.type, self.dtype, enabled=self.dtype != torch.float32):
                if method.step is None:
                    loss = self.loss(self.net(images), targets)
                else:
                    loss = method.step(self.net, images, targets, self.loss, indices=batch.keys, step=step, epoch=epoch)
            loss = loss / config.grad_accum_steps if share is None else loss * share
            self.scaler.scale(loss).backward()
        self.batchnorm.end(micro)
        return loss

    def update(self, step: int, steps: int) -> float:
        """Update the weights with the learning rate of step ``step`` (from 0) of ``steps``, and return the rate."""
        lr = learning_rate(self.config, step, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        if self.config.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=not self.keep_grads)
        if self.method.attacks:
            self.batchnorm.share()
        if self.ema is not None and (step + 1) % self.config.model_ema_every == 0:
            _update_average(self.ema, self.model, average_decay(self.config, step))
        return lr

    def finite(self) -> bool:
        """Whether all weights are finite. Waits for the device: for use before a checkpoint, not in each step."""
        largest = torch._foreach_norm([p.detach() for p in self.model.parameters()], math.inf)
        return bool(torch.stack(list(largest)).isfinite().all())

    def begin(self, source: Source) -> None:
        """Prepare a new run: load its initial weights; without them, whitening layers are computed from images.

        Raises:
            InputError: weights that cannot be used, or the model needs images of one size and ``source`` has several.
            RunError: published weights cannot be downloaded.
        """
        model: Any = self.model
        if self.config.pretrained or self.config.initial_checkpoint:
            classes = len(source.classes)
            log.info(load_initial_weights(self.config, model, classes, self.model_args))
        elif hasattr(model, "whiten"):
            self._whiten(source)
        if self.ema is not None:
            self.ema.load_state_dict(model.state_dict())

    def _whiten(self, source: Source) -> None:
        model: Any = self.model
        if source.canvas is None:
            raise InputError(f"`model` {self.config.model} needs images of one size: train it on CIFAR.")
        images = torch.from_numpy(np.stack([source.read(i) for i in range(min(len(source), _WHITENED))]))
        model.whiten(augment(images, Plan(), mean=self.mean, std=self.std, dtype=torch.float32))
        if self.world.size > 1:  # eigenvectors are defined up to their sign: all ranks take rank 0's
            dist.broadcast(model.whitening, src=0)

    def state(self) -> dict[str, Any]:
        """The content of a checkpoint."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            **({} if self.method.networks is None else {"method": self.method.networks.state_dict()}),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state`, with the rates, decays and precision of this step's own settings."""
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"] or state["model"])  # a new average starts from the weights
        optimizer.load_state(self.optimizer, state["optimizer"])
        if self.method.networks is not None and "method" in state:
            self.method.networks.load_state_dict(state["method"])
        if state["scaler"]:  # empty unless the run was in fp16; a new scaler finds its scale itself
            self.scaler.load_state_dict(state["scaler"])

    def share_statistics(self) -> None:
        """Give every rank the mean running statistics of all ranks, which are those that a checkpoint contains."""
        self.batchnorm.share()
        if self.ema is not None:
            BatchNormStatistics(self.ema, 1, self.world.size).share()

    def _ddp(self) -> Any:
        net = self.net.model if isinstance(self.net, Normalized) else self.net
        return getattr(net, "_orig_mod", net)


def _update_average(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the average of a model's weights and running statistics: a <- decay a + (1 - decay) b."""
    pairs = [*zip(ema.parameters(), model.parameters()), *zip(ema.buffers(), model.buffers())]
    real = [(a, b) for a, b in pairs if a.is_floating_point()]
    counts = [(a, b) for a, b in pairs if not a.is_floating_point()]  # num_batches_tracked of every batch norm
    with torch.no_grad():
        torch._foreach_lerp_([a for a, _ in real], [b for _, b in real], 1 - decay)
        if counts:
            torch._foreach_copy_([a for a, _ in counts], [b for _, b in counts])


def micro_batch_seed(seed: int, step: int, micro: int) -> int:
    """The seed of torch's own generators in one micro-batch (dropout in models that have it)."""
    return (seed * 1_000_003 + step * 8191 + micro) % (1 << 63)
