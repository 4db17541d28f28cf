"""``--shard I/N``: one of N processes that share the work of a command, such as the tasks of a Slurm array."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from fastreg.errors import InputError

T = TypeVar("T")


class Shard(NamedTuple):
    """Shard ``number`` of ``total``, counted from 1."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    @property
    def of(self) -> str:
        """The shard in a file name: ``2-of-8``."""
        return f"{self.number}-of-{self.total}"

    def own(self, items: Sequence[T]) -> list[T]:
        """Every ``total``-th item: the shard's share where neighbors cost about the same."""
        return list(items[self.number - 1 :: self.total])

    def rows(self, n: int) -> range:
        """The shard's share of ``n`` consecutive rows, as a range."""
        return range(n * (self.number - 1) // self.total, n * self.number // self.total)


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


def shard_path(to: Path, shard: Shard) -> Path:
    """The file of a shard of the file ``to``: ``val.2-of-8.beton`` beside ``val.beton``."""
    return to.with_name(f"{to.stem}.{shard.of}{to.suffix}")


def missing_shards(to: Path) -> list[str]:
    """Shards of an unfinished file that are not written yet, such as "2/8"; none if it has no shards."""
    beside = to.parent.iterdir() if to.parent.is_dir() else ()
    there = {shard for path in beside if path.name.startswith(f"{to.stem}.") and (shard := shard_in(path.name))}
    total = max((shard.total for shard in there), default=0)
    shards = (Shard(number, total) for number in range(1, total + 1))
    return [str(shard) for shard in shards if not shard_path(to, shard).is_file()]
