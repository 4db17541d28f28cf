"""The storage of a split: class folders, a ``.beton`` file, ImageNet's tar file or shards, local or remote."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fastreg.errors import InputError
from fastreg.pipelines.address import (
    RemoteFiles,
    Shard,
    is_address,
    is_pattern,
    local_shard,
    matching_files,
)

SHARD_KINDS = {".tar": "webdataset", ".parquet": "parquet"}
# Words in names of files and folders that name a split; the usual word is first
SPLIT_WORDS = {"train": ("train", "training"), "val": ("val", "validation", "valid", "test")}
_COMPRESSED = re.compile(r"\.(tgz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)


class Stored(NamedTuple):
    """One split as it is stored.

    Attributes:
        kind: ``"folder"``, ``"beton"``, ``"imagenet-tar"``, ``"webdataset"``, ``"parquet"``; empty: nothing is there.
        path: The folder or file; for shards, the path as the user gave it.
        files: The files of shards or of a remote ``.beton``.
    """

    kind: str
    path: Path | str
    files: tuple[Shard, ...] = ()


def find_split(root: Path | str, split: str, beton: bool = False, called: str | None = None) -> Stored:
    """Find a split.

    Args:
        root: A folder, a file, a pattern (braces, ``*``, ``{split}``) or an address of one.
        split: ``"train"`` or ``"val"``.
        beton: Prefer ``<split>.beton`` to class folders beside it.
        called: The split's name in the names of folders and files; by default ``SPLIT_WORDS``.

    Returns:
        The first of: class folders, ``<split>.beton``, ImageNet's tar file, tar shards, parquet files. Of several
        files, those whose names contain a word of the split; if no name has a word of any split, all.

    Raises:
        InputError: A pattern names a missing file, or files are compressed.
        RunError: A server does not answer.
    """
    text = str(root)
    words = SPLIT_WORDS[split] if called is None else (called,)
    if "{split}" in text or (is_pattern(text) and not Path(text).exists()):
        return _of_pattern(text, words)
    if is_address(text):
        return _remote(text, words, beton)
    return _local(Path(root), words, beton)


def _of_pattern(text: str, words: Sequence[str]) -> Stored:
    if "{split}" not in text:
        return _of_files(matching_files(text), words, text)
    for word in words:
        pattern = text.replace("{split}", word)
        folder = Path(pattern)
        if not is_pattern(pattern) and not is_address(pattern) and folder.is_dir():
            if folder.name == words[0] and not _only_shards(folder):
                return Stored("folder", folder)
            return _of_files(_files_in(folder), (), folder)
        try:
            files = matching_files(pattern)
        except InputError:
            if word == words[-1]:
                raise
            continue
        if files:
            return _of_files(files, (), pattern)
    return Stored("", text)


def _local(root: Path, words: Sequence[str], beton: bool) -> Stored:
    split = words[0]
    if root.is_file() and root.suffix in SHARD_KINDS:
        return _of_files([local_shard(root)], words, root)
    folder = root / split
    there = [Stored("folder", folder)] if folder.is_dir() and not _only_shards(folder) else []
    files = [
        Stored("beton", path) for path in (root, root / f"{split}.beton") if path.suffix == ".beton" and path.is_file()
    ]
    there = files + there if beton else there + files
    tar = root / f"ILSVRC2012_img_{split}.tar"
    if tar.is_file():
        there.append(Stored("imagenet-tar", tar))
    if not there and root.is_dir():
        for word in words:
            if (root / word).is_dir():
                there.append(_of_files(_files_in(root / word), (), root / word))
        there += [_of_files(_files_in(folder), words, root) for folder in (root, root / "data")]
    return next((stored for stored in there if stored.kind), Stored("", root))


def _files_in(folder: Path) -> list[Shard]:
    if not folder.is_dir():
        return []
    found = [entry.path for entry in os.scandir(folder) if entry.is_file() and _is_shard(entry.name)]
    return [local_shard(path) for path in sorted(found)]


def _is_shard(name: str) -> bool:
    hidden = name.startswith((".", "ILSVRC2012_"))
    return not hidden and (os.path.splitext(name)[1] in SHARD_KINDS or bool(_COMPRESSED.search(name)))


def _only_shards(folder: Path) -> bool:
    """Whether a folder named like a split holds shards, and no class folders."""
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    return any(_is_shard(entry.name) for entry in entries) and not any(entry.is_dir() for entry in entries)


def _remote(root: str, words: Sequence[str], beton: bool) -> Stored:
    split = words[0]
    suffix = os.path.splitext(root.split("?")[0])[1]
    remote = RemoteFiles(root)
    if suffix in (".beton", *SHARD_KINDS) or _COMPRESSED.search(root):
        shard = remote.describe(root)
        if shard is None:
            raise InputError(f"{root} does not exist: set `data_dir` to the address of the data.")
        return Stored("beton", root, (shard,)) if suffix == ".beton" else _of_files([shard], words, root)
    entries = remote.entries(root)
    if not entries:
        raise InputError(f"{root} does not exist or is empty: set `data_dir` to the address of the data.")
    there = []
    folders = {name: shard.path for name, is_folder, shard in entries if is_folder}
    files = [shard for _, is_folder, shard in entries if not is_folder]
    if split in folders:
        below = remote.entries(folders[split])
        if any(is_folder for _, is_folder, _ in below):
            there.append(Stored("folder", folders[split]))
    files_beton = [Stored("beton", shard.path, (shard,)) for shard in files if shard.name == f"{split}.beton"]
    there = files_beton + there if beton else there + files_beton
    if not there:
        for word in words:
            if word in folders:
                there.append(_of_files(_remote_files(remote, folders[word]), (), folders[word]))
        there.append(_of_files([shard for shard in files if _is_shard(shard.name)], words, root))
        if "data" in folders:
            there.append(_of_files(_remote_files(remote, folders["data"]), words, root))
    found = next((stored for stored in there if stored.kind), Stored("", root))
    if found.files and any(shard.size < 0 for shard in found.files):  # HTTP listings have no sizes
        described = remote.describe_all([shard.path for shard in found.files])
        found = found._replace(files=tuple(shard for shard in described if shard is not None))
    return found


def _remote_files(remote: RemoteFiles, folder: str) -> list[Shard]:
    return [shard for name, is_folder, shard in remote.entries(folder) if not is_folder and _is_shard(name)]


def _of_files(files: Iterable[Shard], words: Sequence[str], root: Path | str) -> Stored:
    """The files of the split of these words (all files without words), of one kind, sorted by name."""
    files = sorted(files, key=lambda shard: (shard.name, shard.path))
    packed = [shard for shard in files if _COMPRESSED.search(shard.name)]
    if packed and len(packed) == len(files):
        raise InputError(f"{packed[0].path} is compressed, and samples are read at random: decompress it.")
    for suffix, kind in SHARD_KINDS.items():
        mine = [shard for shard in files if shard.name.endswith(suffix)]
        chosen = _of_split(mine, words) if words else mine
        if chosen:
            return Stored(kind, root, tuple(chosen))
    if len(files) == 1 and files[0].name.endswith(".beton"):
        return Stored("beton", files[0].path, tuple(files) if is_address(files[0].path) else ())
    return Stored("", root)


def _of_split(files: Sequence[Shard], words: Sequence[str]) -> list[Shard]:
    for word in words:
        chosen = [shard for shard in files if _has_word(shard.name, word)]
        if chosen:
            return chosen
    usual = [word for known in SPLIT_WORDS.values() for word in known]
    named = words not in SPLIT_WORDS.values() or any(_has_word(shard.name, word) for shard in files for word in usual)
    return [] if named else list(files)


def _has_word(name: str, word: str) -> bool:
    after = "a-z0-9" if word[-1:].isdecimal() else "a-z"
    return re.search(rf"(?<![a-z]){re.escape(word.lower())}(?![{after}])", name.lower()) is not None
