"""Learning rate, decay of the average and training size as pure functions of the progress of a run."""

from __future__ import annotations

import math

from fastreg.training.config import Config


def learning_rate(config: Config, step: int, steps: int) -> float:
    """The learning rate of step ``step`` (from 0) of ``steps``: linear warm-up, then the schedule."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return config.lr * (1e-4 + (1 - 1e-4) * step / warmup)
    if config.sched == "step":
        return config.lr * 0.1 ** sum(step >= round(at * steps) for at in config.milestones)
    done = (step - warmup) / max(steps - warmup, 1)
    if config.sched == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (1 - done)


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
