"""Worker processes of the GPU check, each with a pipe; a process is replaced after a CUDA error.

A request is ``(function, arguments)``. ``function`` is "module:name"; it is a generator of ``(item, result)`` and
announces an item with the result None. A worker sends each yielded pair. After an item whose result has ``restart``, or
after a crash, a new process continues with the next items.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import math
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

_SPAWN = multiprocessing.get_context("spawn")
Answer = Callable[[Any, Any], None]  # item, result


class Request(NamedTuple):
    """Work for one worker: ``function(items, *arguments)`` in its process."""

    function: str
    items: list[Any]
    arguments: tuple[Any, ...] = ()


class Worker:
    """One process. It imports once, and serves requests until it is closed."""

    def __init__(self, crashes: Path):
        self.crashes = crashes
        self.pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(theirs, str(crashes)), daemon=True)
        self.process.start()
        theirs.close()

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Pool:
    """Workers that run requests side by side."""

    def __init__(self, processes: int, crashes: Path):
        self.crashes = crashes
        self.workers = [Worker(crashes) for _ in range(processes)]

    def run(self, requests: list[Request], answer: Answer, deadline: float) -> bool:
        """Run one request per worker.

        Args:
            requests: at most as many as there are workers.
            answer: called with each item and its result. An item whose process ended gets ``{"crash": reason}``.
            deadline: of ``time.monotonic``; workers that still run then are killed.

        Returns:
            Whether all requests were finished.
        """
        open_items = [list(request.items) for request in requests]
        begun: list[Any] = [None] * len(requests)
        busy = {}
        for n, request in enumerate(requests):
            if request.items:
                self.workers[n].pipe.send(tuple(request))
                busy[n] = self.workers[n].pipe
        while busy:
            left = deadline - time.monotonic()
            ready = wait(list(busy.values()), timeout=left if left < math.inf else None) if left > 0 else []
            if not ready:
                for n in busy:
                    self._replace(n)
                return False
            for n in [n for n, pipe in busy.items() if pipe in ready]:
                state = self._receive(n, open_items[n], begun, answer)
                if state == "done" or (state == "ended" and not open_items[n]):
                    del busy[n]
                if state == "ended":
                    self._replace(n)
                    if n in busy:
                        self.workers[n].pipe.send((requests[n].function, open_items[n], requests[n].arguments))
                        busy[n] = self.workers[n].pipe
        return True

    def _receive(self, n: int, items: list[Any], begun: list[Any], answer: Answer) -> str:
        """Handle one message of worker ``n``: "more", "done", or "ended" when the process is gone or has to go."""
        try:
            item, result = self.workers[n].pipe.recv()
        except (EOFError, OSError):
            self.workers[n].process.join(timeout=10)
            lost = begun[n] if begun[n] is not None else (items[0] if items else None)
            if lost in items:
                items.remove(lost)
                answer(lost, {"crash": f"the process ended with exit code {self.workers[n].process.exitcode}"})
            begun[n] = None
            return "ended"
        if item is None:
            return "done"
        if result is None:
            begun[n] = item
            return "more"
        begun[n] = None
        with contextlib.suppress(ValueError):
            items.remove(item)
        answer(item, result)
        return "ended" if isinstance(result, dict) and result.get("restart") else "more"

    def _replace(self, n: int) -> None:
        self.workers[n].close()
        self.workers[n] = Worker(self.crashes)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


def _serve(pipe: Connection, crashes: str) -> None:
    with open(crashes, "a") as file:
        faulthandler.enable(file)
        with contextlib.suppress(Exception):  # workers import in parallel; a request reports an error
            importlib.import_module("fastreg.benchmarks.gpu_check.work")
        while True:
            try:
                function, items, arguments = pipe.recv()
            except EOFError:
                os._exit(0)
            module, _, name = function.partition(":")
            try:
                work: Iterator[tuple[Any, Any]] = getattr(importlib.import_module(module), name)(items, *arguments)
                for item, result in work:
                    pipe.send((item, result))
                pipe.send((None, None))
            except Exception:
                traceback.print_exc(file=file)
                file.flush()
                os._exit(1)
