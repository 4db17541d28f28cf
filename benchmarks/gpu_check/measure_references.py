"""Measure the CPU seconds of every reference: ``python -m fastreg.benchmarks.gpu_check.measure_references``.

Writes reference_seconds.json, from which the time plan and the split over processes are computed.
"""

from __future__ import annotations

import json

import torch

from fastreg import files
from fastreg.benchmarks.gpu_check.checks import COSTS
from fastreg.benchmarks.gpu_check.work import CHECKS, checks_by_name, measure_references


def main() -> None:
    torch.set_num_threads(1)
    checks = checks_by_name(CHECKS, False)
    first: dict[str, str] = {}
    for check in checks.values():
        first.setdefault(check.group or check.name, check.name)
    key_of = {name: key for key, name in first.items()}
    costs = {key_of[n]: round(r["seconds"], 2) for n, r in measure_references(list(key_of), CHECKS, False)}
    files.atomic_write(COSTS, json.dumps(costs, indent=0, sort_keys=True) + "\n")
    print(f"{len(costs)} references, {sum(costs.values()):.0f} seconds of one core: {COSTS}")


if __name__ == "__main__":
    main()
