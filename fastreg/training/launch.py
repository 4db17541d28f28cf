"""``--gpus N``: what all processes would meet is looked at, then torchrun starts the same command once per GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from fastreg.distributed import resolve_device
from fastreg.errors import InputError
from fastreg.models import create_model
from fastreg.pipelines.order import Order
from fastreg.training import setup
from fastreg.training.config import Config
from fastreg.training.data import open_sets
from fastreg.training.resume import choose_folder


def look(config: Config, resume: str | None, processes: int, allow_changes: bool = False) -> None:
    """Raise the InputError that all ``processes`` of a run on this machine would meet, as far as one can see here."""
    gpu = resolve_device(config.device).type == "cuda"
    if gpu and processes > torch.cuda.device_count():
        raise InputError(f"--gpus {processes}: this machine has {torch.cuda.device_count()}.")
    choose_folder(config, resume, processes, allow_changes)
    train, _ = open_sets(config)
    Order(len(train), config.batch_size or 1, True, accumulate=config.grad_accum_steps, world=processes)
    method = setup.build_method(config)
    create_model(config.model, len(train.classes), stem=config.stem, **setup.model_arguments(config, method))


def launch(processes: int, words: Sequence[str]) -> int:
    """Run ``fastreg WORDS`` in that many processes of this machine; the exit code of the first that failed, or 0.

    The processes speak for themselves: torchrun's own account of their end (a traceback of itself) is left out.
    """
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # torchrun's
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    try:
        main(["--standalone", f"--nproc-per-node={processes}", "-m", "fastreg", *words])
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 1  # negative: it died of a signal
    except SignalException:
        return 1  # the processes were told, and have saved
    return 0
