"""First pass of a mode: the workers compile in parallel every kernel specialization that it needs, each once."""

from __future__ import annotations

from typing import Any

from fastreg.benchmarks.gpu_check.pool import Pool, Request

COMPILE = "fastreg.benchmarks.gpu_check.work:compile_recorded"


def compile_all(
    pool: Pool, items: list[str], record: str, arguments: tuple[Any, ...], deadline: float, capability: int = 0
) -> int:
    """Record the specializations that the items need, share them among the workers, and compile them.

    Args:
        pool: the workers; each of them keeps the specializations that it recorded.
        items: checks or cases.
        record: "module:function" that records items; it receives ``arguments`` and the capability.
        arguments: further arguments of ``record``.
        deadline: of ``time.monotonic``.
        capability: of the GPU to compile for, 90 for an H100; 0: this machine's.

    Returns:
        The number of specializations.
    """
    if not capability:
        import torch

        major, minor = torch.cuda.get_device_capability()
        capability = 10 * major + minor
    processes = len(pool.workers)
    shares = [items[n::processes] for n in range(processes)]
    worker_of = {item: n for n, share in enumerate(shares) for item in share}
    owners: dict[str, list[int]] = {}

    def note(item: str, result: dict[str, Any]) -> None:
        for key in result.get("keys", ()):
            owners.setdefault(key, []).append(worker_of[item])

    pool.run([Request(record, share, (*arguments, capability)) for share in shares], note, deadline)
    lists: list[list[str]] = [[] for _ in range(processes)]
    for key, workers in owners.items():  # each specialization once, by the worker with the shortest list that has it
        min((lists[n] for n in workers), key=len).append(key)
    pool.run([Request(COMPILE, keys) for keys in lists], lambda *_: None, deadline)
    return len(owners)
