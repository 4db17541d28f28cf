"""Compiled kernels in one archive, so that the next run on a fresh machine does not compile them again.

The archive has Triton's binaries and metadata, without intermediate code.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from pathlib import Path

LIMIT = 16_000_000  # bytes of the archive
ARCHIVE = "compiled.tar.xz"
KEPT = (".cubin", ".json", ".so")


def folder() -> Path:
    """The cache folder of the GPU check."""
    return Path(tempfile.gettempdir()) / f"fastreg-gpu-check-{os.getuid()}"


def use() -> None:
    """Make Triton and Inductor of this process and its children use the cache folder."""
    os.environ["TRITON_CACHE_DIR"] = str(folder() / "triton")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder() / "inductor")


def pack(source: Path, archive: Path) -> int:
    """Write the archive.

    Args:
        source: a cache folder.
        archive: the file to write; there is none when it would exceed ``LIMIT``.

    Returns:
        Bytes of the archive; 0 when there is none.
    """
    paths = [path for path in sorted((source / "triton").rglob("*")) if path.is_file() and path.suffix in KEPT]
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz", preset=3) as tar:
        for path in paths:
            tar.add(path, str(path.relative_to(source)))
    if not paths or data.tell() > LIMIT:
        return 0
    archive.write_bytes(data.getvalue())
    return data.tell()


def unpack(archive: Path, target: Path) -> int:
    """Unpack an archive into a cache folder, and return the number of files.

    Triton's group files name their members by absolute paths; they are rewritten for ``target``.
    """
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
        names = tar.getnames()
    for path in (target / "triton").rglob("__grp__*.json"):
        group = json.loads(path.read_text())
        group["child_paths"] = {name: str(path.parent / name) for name in group["child_paths"]}
        path.write_text(json.dumps(group))
    return len(names)
