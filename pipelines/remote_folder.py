"""Class folders behind an address: every image is downloaded once, whole, into the cache."""

from __future__ import annotations

import numpy as np

from fastreg.errors import InputError
from fastreg.pipelines.address import RemoteFiles, Shard
from fastreg.pipelines.file_list import EXTENSIONS
from fastreg.pipelines.shard_cache import ShardCache
from fastreg.pipelines.source import Dataset, Source, counts_of


class RemoteFolderSource(Source):
    """``address/<class>/*.JPEG``: classes are the sorted folder names, and images are sorted by name.

    Raises:
        InputError: There are no class folders, or one has no images.
        RunError: The server does not answer.
    """

    def __init__(self, address: str, root: str, name: str, split: str, spec: Dataset, *, cache: ShardCache):
        self._cache = cache
        remote = RemoteFiles(address)
        folders = [(name, shard.path) for name, is_folder, shard in remote.entries(address) if is_folder]
        classes = [name for name, _ in folders if not name.startswith(".")]
        if not classes:
            raise InputError(f"{address} has no class folders: put images into {address}/<class>/.")
        rows: list[list[Shard]] = []
        for folder_name, path in folders:
            if folder_name.startswith("."):
                continue
            rows.append(
                [
                    shard
                    for file, is_folder, shard in remote.entries(path)
                    if not is_folder and not file.startswith(".") and file.lower().endswith(EXTENSIONS)
                ]
            )
            if not rows[-1]:
                raise InputError(f"class folder {path} has no images ({', '.join(EXTENSIONS)}): fill or remove it.")
        self._files = [shard for row in rows for shard in row]
        labels = np.repeat(np.arange(len(classes)), [len(row) for row in rows])
        counts = counts_of(classes, [[(shard.name, max(0, shard.size)) for shard in row] for row in rows])
        super().__init__(name, split, root, spec, labels, classes, counts)

    def read(self, index: int) -> bytes:
        return self._cache.local_path(self._files[index]).read_bytes()

    def key(self, index: int) -> str:
        return "/".join(self._files[index].path.rsplit("/", 2)[-2:])

    def describe(self, index: int) -> str:
        return self._files[index].path
