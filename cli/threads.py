"""OpenMP's threads in the processes of the command line; a library import changes nothing."""

from __future__ import annotations

import os
import sys

from fastreg.environment import available_cpus, granted_cpus


def set_thread_defaults() -> None:
    """Set OpenMP's variables that the user has not set. OpenMP reads them when PyTorch is loaded, and not later.

    Waiting threads sleep (``OMP_WAIT_POLICY=passive``) instead of spinning, which would take the time of other
    processes; and there are no more threads than CPUs that the container may use, however many the machine has.
    """
    if "torch" in sys.modules:
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    granted = granted_cpus()
    if granted < available_cpus():
        os.environ.setdefault("OMP_NUM_THREADS", str(granted))
