"""The processes of one run: rank, world size and device of this one, and errors that all of them raise together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from fastreg.errors import InputError, RunError

TIMEOUT = timedelta(minutes=30)  # of a collective operation, which may wait for the first batch of a slow file system


class World(NamedTuple):
    """This process among all processes of a run.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: device of this process.
    """

    rank: int
    size: int
    device: torch.device


def resolve_device(name: str | torch.device) -> torch.device:
    """Turn a device name into a torch device, and make a GPU that is named with its index the current one.

    Args:
        name: ``"auto"`` (the GPU if there is one, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or a torch device.

    Returns:
        The device. ``"cuda"`` stays without an index: :func:`init_distributed` adds the local rank.

    Raises:
        InputError: ``name`` is neither the CPU nor a CUDA device, or PyTorch does not see that GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"`device` {name} is not known: give auto, cpu, cuda, or one of several GPUs, such as cuda:1.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"`device` {name}: PyTorch sees no GPU; use the CPU, or see `fastreg doctor`.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"`device` {name} does not exist: PyTorch sees {torch.cuda.device_count()}, from cuda:0 on.")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


@contextmanager
def init_distributed(device: str | torch.device = "auto") -> Iterator[World]:
    """Join the process group that torchrun started (NCCL on GPUs, gloo on CPUs), and leave it at the end of the block.

    Without torchrun the world has one process. A caller that has joined a process group already stays in it.

    Args:
        device: as in :func:`resolve_device`; ``"cuda"`` becomes the GPU of the local rank.

    Yields:
        This process's :class:`World`.

    Raises:
        InputError: ``device`` is unknown, or PyTorch does not see that GPU.
    """
    resolved = resolve_device(device)
    if resolved.type == "cuda" and resolved.index is None:
        resolved = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        resolve_device(resolved)
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    join = size > 1 and not dist.is_initialized()
    if join:
        try:
            dist.init_process_group("nccl" if resolved.type == "cuda" else "gloo", timeout=TIMEOUT)
        except (RuntimeError, ValueError) as error:  # a port in use, no answer, a variable that is not set
            where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
            raise RunError(f"rank {rank} cannot join the other ranks at {where}: {_reason(error)}.") from error
    try:
        if dist.is_initialized():
            rank, size = dist.get_rank(), dist.get_world_size()
        yield World(rank, size, resolved)
    except RuntimeError as error:
        if size == 1 or not _lost_connection(error):
            raise
        raise RunError(
            f"rank {rank} lost the connection to another rank, which has ended or does not answer; its own message "
            "has the reason, and `resume` continues the run."
        ) from error
    finally:
        if join:
            dist.destroy_process_group()


def _reason(error: BaseException) -> str:
    text = str(error)
    if "EADDRINUSE" in text or "address already in use" in text.lower():
        return "the port is in use; set MASTER_PORT (torchrun: --master-port) to another one"
    return (text.splitlines() or [type(error).__name__])[0].rstrip(".")[:200]


def _lost_connection(error: BaseException) -> bool:
    text = str(error)
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting")
    return isinstance(error, dist.DistError) or ("gloo" in text and any(word in text for word in words))


def require_equal(world: World, facts: Mapping[str, Any]) -> None:
    """Compare facts of all ranks, which must be the same.

    Args:
        world: this rank.
        facts: plain values by name.

    Raises:
        InputError: a fact differs from that of rank 0; the message has both values.
    """
    shares: list[Any] = [dict(facts)]
    if world.size > 1:
        shares *= world.size
        dist.all_gather_object(shares, shares[0])
    for rank, share in enumerate(shares):
        for key, first in shares[0].items():
            if share.get(key) != first:
                raise InputError(
                    f"`{key}` is {first} on rank 0 and {share.get(key)} on rank {rank}: give all ranks the same "
                    "settings and data."
                )


@contextmanager
def raise_on_all_ranks(world: World) -> Iterator[None]:
    """Raise an error of the block on every rank, so that no rank waits for one that has left.

    The block must not communicate among processes.

    Args:
        world: this process.

    Raises:
        InputError, RunError: the first error among the ranks.
    """
    own: Exception | None = None
    try:
        yield
    except (InputError, RunError) as error:
        own = error
    errors = [own]
    if world.size > 1:
        errors *= world.size
        dist.all_gather_object(errors, own)
    for first in errors:
        if first is not None:
            raise first


def gather_in_order(values: Tensor, indices: Tensor, world: World) -> Tensor:
    """Gather the values of all ranks in the order of their indices.

    Args:
        values: [B, ...] of any ``dtype``, of this rank; an empty vector for none.
        indices: int64 [B] on the host, positions among the values of all ranks.
        world: this rank.

    Returns:
        [N, ...] of that ``dtype``, on the host of every rank.
    """
    shares: list[Any] = [(values.cpu(), indices)]
    if world.size > 1:
        shares = [None] * world.size
        dist.all_gather_object(shares, (values.cpu(), indices))
    order = torch.cat([i for _, i in shares]).argsort()
    return torch.cat([v for v, _ in shares])[order]
