"""compute-sanitizer over the registry's small examples: ``python -m fastreg.benchmarks.gpu_check.sanitize`` runs them.

:func:`sanitize` starts that program under memcheck and racecheck, where the tool is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TOOLS = ("memcheck", "racecheck")
FEWEST_SECONDS, MOST_SECONDS = 40.0, 1800.0  # with less time left it does not start
ERROR = 9  # exit code of the tool after a finding


def sanitize(seconds: float, log: Path) -> list[dict[str, Any]]:
    """Run the tools side by side.

    Args:
        seconds: time limit.
        log: file to which their output is appended.

    Returns:
        One result per tool, as :func:`fastreg.benchmarks.gpu_check.check.run_check` gives; a tool that is not installed
        or has no time is not checked.
    """
    program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if program is None or seconds < FEWEST_SECONDS:
        why = "compute-sanitizer is not installed" if program is None else "no time was left"
        return [_result(tool, True, f"not checked: {why}", 0.0) for tool in TOOLS]
    begun, seconds = time.monotonic(), min(seconds, MOST_SECONDS)
    running = {}
    for tool in TOOLS:
        words = [program, "--tool", tool, "--error-exitcode", str(ERROR), sys.executable, "-m", __name__]
        running[tool] = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    results = []
    for tool, process in running.items():
        try:
            output, _ = process.communicate(timeout=max(seconds - (time.monotonic() - begun), 1))
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            results.append(_result(tool, True, "not checked: its time ended", time.monotonic() - begun))
            continue
        finally:
            with open(log, "a") as file:
                file.write(f"compute-sanitizer {tool}\n{(output or '')[-200_000:]}\n")
        last = (output.strip().splitlines() or [""])[-1]
        results.append(
            _result(tool, process.returncode == 0, "" if process.returncode == 0 else last, time.monotonic() - begun)
        )
    return results


def _result(tool: str, ok: bool, detail: str, seconds: float) -> dict[str, Any]:
    return {"name": f"compute-sanitizer {tool}", "ok": ok, "detail": detail, "seconds": round(seconds, 1)}


def main(device: str = "cuda") -> int:
    """Launch every kernel once on its small example."""
    import torch

    from fastreg.kernels.registry import operations

    for op in operations():
        arguments = op.example(torch.device(device))
        (op.triton if device != "cpu" else op.reference)(**arguments)
        if device != "cpu":
            torch.cuda.synchronize()
    return 0


if __name__ == "__main__":
    sys.exit(main())
