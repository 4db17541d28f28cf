"""What all processes of a run would meet, looked at before they start."""

from __future__ import annotations

import torch

from fastreg.errors import InputError
from fastreg.models import create_model
from fastreg.pipelines.order import Order
from fastreg.training import setup
from fastreg.training.config import Config
from fastreg.training.data import open_sets


def look(config: Config, resume: str | None, processes: int) -> None:
    """Raise the InputError that all ``processes`` of a run on this machine would meet, as far as one can see here."""
    gpu = setup.device_named(config.device).type == "cuda"
    if gpu and processes > torch.cuda.device_count():
        raise InputError(f"--gpus {processes}: this machine has {torch.cuda.device_count()}.")
    setup.choose_folder(config, resume)
    train, _ = open_sets(config)
    Order(len(train), config.batch_size or 1, True, accumulate=config.grad_accum_steps, world=processes)
    method = setup.build_method(config)
    create_model(config.model, len(train.classes), stem=config.stem, **setup.model_arguments(config, method))
