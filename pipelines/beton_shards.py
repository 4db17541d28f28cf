"""A ``.beton`` file written in shards: ``val.2-of-8.beton`` beside ``val.beton``, each a file of consecutive samples.

The last shard to finish copies the stored samples into one file, without decoding them, and removes the shards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastreg.errors import InputError
from fastreg.files import InUseError
from fastreg.pipelines.beton import BetonSource
from fastreg.pipelines.beton_write import BetonWriter, Encoded
from fastreg.pipelines.datasets import DATASETS
from fastreg.progress import progress
from fastreg.shard import Shard, shard_path


def check_no_run_without_shards(to: Path) -> None:
    """Raise InputError if a run without shards has begun ``to``: it would block the join, after all shards' work."""
    journal = to.with_name(to.name + ".part.journal")
    first = journal.open("rb").readline() if journal.is_file() else b""
    if first and b'"shards":' not in first:
        raise InputError(
            f"{to}.part is of an unfinished run without `shard`: remove it and {journal}, or finish it so."
        )


def join_shards(
    to: Path, name: str, split: str, total: int, settings: dict[str, Any], about: dict[str, Any], room: tuple[int, int]
) -> None:
    """Write ``to`` from its shards once all are finished. Its bytes are those that one process writes.

    Args:
        to: The file to write.
        name, split: As for ``open_dataset``.
        total: Number of shards.
        settings: What determines the content.
        about: The note to keep in the file.
        room: Largest number of samples, and bytes of the largest.

    Raises:
        InputError: A shard was made from other data or settings.
        RunError: The file cannot be written.
    """
    paths = {shard: shard_path(to, shard) for shard in (Shard(number, total) for number in range(1, total + 1))}
    if not all(path.is_file() for path in paths.values()):
        return
    sources = []
    for shard, path in paths.items():
        sources.append(BetonSource(path, name, split, DATASETS[name]))
        if {key: sources[-1].about.get(key) for key in settings} != settings:
            raise InputError(
                f"{path} was made from other data or with other settings: remove it, and run {shard} anew."
            )
    try:
        writer = BetonWriter(to, {**settings, "shards": total}, *room)
    except InUseError:  # another shard has finished at the same time, and joins them
        return
    try:
        begun, number = writer.next, 0
        with progress(f"join {to.name}", sum(map(len, sources)), done=begun) as bar:
            for source in sources:
                for index in range(len(source)):
                    if number >= begun:
                        sides = int(source.widths[index]), int(source.heights[index])
                        source.check(index)
                        sample = Encoded(int(source.modes[index]), *sides, source.stored(index).tobytes())
                        writer.add(number, int(source.labels[index]), sample)
                        bar.advance(1)
                    number += 1
        writer.finish(about)
    finally:
        writer.close()
    for path in paths.values():
        path.unlink(missing_ok=True)
