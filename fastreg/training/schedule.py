"""Learning rate, decay of the average and training size as pure functions of the progress of a run."""

from __future__ import annotations

import math

from fastreg.training.config import Config


def learning_rate(config: Config, step: int, steps: int) -> float:
    """The learning rate of step ``step`` (from 0) of ``steps``: linear warm-up, the schedule, cooldown.

    Args:
        config: settings of the run.
        step: number of the step.
        steps: number of steps of the run.

    Returns:
        The rate. It changes with each step; timm's default and torchvision change theirs with each epoch.

    Source:
        timm.scheduler at step n: CosineLRScheduler, PolyLRScheduler, MultiStepLRScheduler. With ``warmup_overlap`` the
        schedule counts from the first step, as timm's ``warmup_prefix=False``.
    """
    warmup = round(config.warmup * steps)
    if step < warmup:
        if config.warmup_lr is None:
            return config.lr * (1e-4 + (1 - 1e-4) * step / warmup)
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / warmup
    if config.sched == "constant":
        return config.lr
    if config.sched == "step":
        return config.lr * config.decay_rate ** sum(step >= round(at * steps) for at in config.milestones)
    first = 0 if config.warmup_overlap else warmup
    done = (step - first) / max(steps - round(config.cooldown * steps) - first, 1)
    if done >= 1:
        return config.min_lr
    if config.sched == "cosine":
        return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + math.cos(math.pi * done))
    if config.sched == "poly":
        return config.min_lr + (config.lr - config.min_lr) * (1 - done) ** config.decay_rate
    return config.min_lr + (config.lr - config.min_lr) * (1 - done)


def average_decay(config: Config, step: int) -> float:
    """Decay of the averaged weights after step ``step`` (from 0).

    With ``model_ema_warmup`` it is min(decay, (1 + step) / (10 + step)), so that the initial weights do not dominate
    the average of a short run.

    Source: TensorFlow, tf.train.ExponentialMovingAverage, with ``num_updates`` = step.
    """
    decay = config.model_ema_decay or 0.0
    return min(decay, (1 + step) / (10 + step)) if config.model_ema_warmup else decay


def train_size(config: Config, epoch: int) -> int:
    """Side of the training images in an epoch, in pixels: ``min_size`` growing to ``size`` in multiples of 32."""
    if config.min_size is None:
        return config.size
    first, last = config.size_ramp
    done = min(max((epoch / config.epochs - first) / max(last - first, 1e-9), 0.0), 1.0)
    if done in (0.0, 1.0):
        return config.size if done else config.min_size
    side = 32 * round((config.min_size + done * (config.size - config.min_size)) / 32)
    return min(max(side, config.min_size), config.size)
