"""Calls over a network, retried a bounded number of times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from fastreg.errors import InputError, RunError
from fastreg.log import log

T = TypeVar("T")

TRIES = 4
PAUSE_SECONDS = 0.5  # before the second try; doubled before each further one


def retried(call: Callable[[], T], what: str) -> T:
    """The result of a call, which is tried ``TRIES`` times.

    Args:
        call: A function over a network.
        what: Description of a failure, for messages: "cannot list s3://bucket/folder".

    Returns:
        The result of the call.

    Raises:
        FileNotFoundError, NotADirectoryError: As the call raises it; it is not tried again.
        RunError: The server refuses the request, or every try failed.
    """
    for k in range(TRIES):
        try:
            return call()
        except (FileNotFoundError, NotADirectoryError, InputError, RunError):
            raise
        except Exception as error:  # every file system has errors of its own
            why = reason_of(error)
            if refused(error):
                raise RunError(f"{what}: {why}.") from None
            if k + 1 == TRIES:
                raise RunError(f"{what}: {why} (tried {TRIES} times); the same command continues.") from None
            log.debug("%s: %s; trying again", what, why)
            time.sleep(PAUSE_SECONDS * 2**k)
    raise AssertionError("unreachable")


def refused(error: BaseException) -> bool:
    """Whether a retry is useless: no permission, or an HTTP status from 400 to 499 except 408 and 429."""
    status = getattr(error, "status", getattr(error, "code", 0))
    is_status = isinstance(status, int) and 400 <= status < 500 and status not in (408, 429)
    return isinstance(error, PermissionError) or is_status


def reason_of(error: BaseException) -> str:
    """The reason why a call failed, one clause."""
    text = str(getattr(error, "message", "") or error).strip().splitlines()
    status = getattr(error, "status", None)
    return (f"HTTP {status} " if isinstance(status, int) else "") + (
        text[0].rstrip(".") if text else type(error).__name__
    )
