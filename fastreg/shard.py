"""``--shard I/N``: one of N processes that share the work of a command, such as the tasks of a Slurm array."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from fastreg.errors import InputError

T = TypeVar("T")


class Shard(NamedTuple):
    """Shard ``number`` of ``count``, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def of(self) -> str:
        """The shard in a file name: ``2-of-8``."""
        return f"{self.number}-of-{self.count}"

    def own(self, items: Sequence[T]) -> list[T]:
        """Every ``count``-th item: the shard's share where neighbors cost about the same."""
        return list(items[self.number - 1 :: self.count])

    def rows(self, n: int) -> range:
        """The shard's share of ``n`` consecutive rows, as a range."""
        return range(n * (self.number - 1) // self.count, n * self.number // self.count)


def parse_shard(shard: str | Shard | None) -> Shard | None:
    """The shard that ``"I/N"`` names; None for None.

    Raises:
        InputError: it is not two whole numbers with I from 1 to N.
    """
    if shard is None or isinstance(shard, Shard):
        return shard
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", str(shard).strip())
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"`shard` is {shard}: give I/N with I from 1 to N, such as 2/8.")
    return Shard(int(found[1]), int(found[2]))


def shard_in(name: str) -> Shard | None:
    """The shard in a file name that contains ``2-of-8``; None without one."""
    found = re.search(r"\b(\d+)-of-(\d+)\b", name)
    return Shard(int(found[1]), int(found[2])) if found else None
