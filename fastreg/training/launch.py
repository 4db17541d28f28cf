"""``--gpus N``: torchrun in this process, which starts the same command once per GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence


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
