"""``fastreg train --gpus N``: validate once in this process, then start one torchrun worker per GPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import torch

from fastreg.distributed import resolve_device
from fastreg.errors import InputError, RunError
from fastreg.pipelines.order import Order
from fastreg.training import setup
from fastreg.training.config import Config
from fastreg.training.data import open_sets
from fastreg.training.optimizer import build_optimizer
from fastreg.training.resume import choose_folder


def check_run(config: Config, resume: str | None, world_size: int, allow_changes: bool = False) -> None:
    """Raise the InputErrors of a run's ranks that one process can detect, before the ranks start.

    Args:
        config: settings of the run.
        resume: as in ``train``.
        world_size: number of ranks.
        allow_changes: as in ``train``.
    """
    gpu = resolve_device(config.device).type == "cuda"
    if not gpu and config.device == "auto":
        raise InputError(f"`gpus` {world_size}: this machine has no GPU; `device` cpu starts processes on its cores.")
    if gpu and world_size > torch.cuda.device_count():
        raise InputError(f"`gpus` {world_size}: this machine has {torch.cuda.device_count()}.")
    choose_folder(config, resume, world_size, allow_changes)
    train_set, _ = open_sets(config)
    shares: dict[str, Any] = {"accumulate": config.grad_accum_steps, "world": world_size}
    Order(len(train_set), config.batch_size or 1, True, drop_last=config.drop_last, **shares)
    method = setup.build_method(config)
    build_optimizer(config, setup.new_model(config, len(train_set.classes), setup.model_arguments(config, method)))


def launch(world_size: int, words: Sequence[str]) -> int:
    """Run ``fastreg WORDS`` in ``world_size`` processes of this machine.

    The processes print their own errors; torchrun's own traceback is left out.

    Returns:
        The exit code of the first process that failed, or 0.

    Raises:
        RunError: a signal ended a process.
    """
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # torchrun's
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    try:
        main(["--standalone", f"--nproc-per-node={world_size}", "-m", "fastreg", *words])
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        if first.exitcode > 0:
            return first.exitcode
        name = signal.Signals(-first.exitcode).name
        memory = ", perhaps for want of memory" if name == "SIGKILL" else ""
        raise RunError(f"rank {rank} was ended by {name}{memory}: `resume` auto continues the run.") from None
    except SignalException:
        return 1  # the processes received the signal too, and have saved
    return 0
