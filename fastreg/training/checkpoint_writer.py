"""Checkpoints written by a background thread from a copy, so that training goes on meanwhile."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fastreg import runs


class CheckpointWriter:
    """Writes one group of checkpoints at a time. Use in one thread; ``close`` waits for the last."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def write(self, states: Mapping[Path, Mapping[str, Any]]) -> None:
        """Copy the states and write each to its path, in order, in the background.

        A write that is not finished is waited for.

        Args:
            states: the content of each file.

        Raises:
            RunError: the write before this one failed.
        """
        self.wait()
        copies = snapshot(dict(states))
        self._thread = threading.Thread(target=self._write, args=(copies,), name="fastreg-checkpoint")
        self._thread.start()

    def _write(self, states: dict[Path, dict[str, Any]]) -> None:
        try:
            for path, state in states.items():
                runs.save_checkpoint(path, state)
        except BaseException as error:  # raised in the thread that trains
            self._error = error

    def wait(self) -> None:
        """Wait until all is written. Raises RunError if a write failed."""
        self.close()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait until all is written; errors are kept for ``wait``."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def snapshot(state: Any) -> Any:
    """A copy of a state that later steps do not change; tensors are on the CPU, and shared memory stays shared.

    Args:
        state: containers of tensors and plain values.
    """
    done: dict[int, Any] = {id(tensor): tensor.detach().cpu() for tensor in _tensors(state) if tensor.is_cuda}
    return copy.deepcopy(state, done)


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, Mapping | list | tuple):
        for value in state.values() if isinstance(state, Mapping) else state:
            yield from _tensors(value)
