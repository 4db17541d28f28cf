"""``fastreg data fetch``: published files by name, resumed where they stopped and verified by checksum."""

from __future__ import annotations

import gzip
import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from typing import Any, NamedTuple

from fastreg.errors import InputError, RunError, unknown
from fastreg.pipelines.frost import FROST
from fastreg.progress import progress


class Published(NamedTuple):
    """One published file: address and checksum ("md5:..." or "sha256:..."); archives are unpacked and removed."""

    url: str
    checksum: str

    @property
    def name(self) -> str:
        return self.url.split("?")[0].rsplit("/", 1)[-1]


_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_SVHN = "http://ufldl.stanford.edu/housenumbers/"
_ODIN = "https://www.dropbox.com/s/"
_FROST = "https://raw.githubusercontent.com/bethgelab/imagecorruptions/master/imagecorruptions/frost/"

FILES: dict[str, tuple[Published, ...]] = {
    "cifar10": (Published(_TORONTO + "cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a"),),
    "cifar100": (Published(_TORONTO + "cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85"),),
    "svhn": (
        Published(_SVHN + "train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
        Published(_SVHN + "test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3"),
    ),
    "odin": (
        Published(_ODIN + "avgm2u562itwpkl/Imagenet.tar.gz?dl=1", "md5:7c0827e4246c3718a5ee076e999e52e5"),
        Published(_ODIN + "kp3my3412u5k9rl/Imagenet_resize.tar.gz?dl=1", "md5:0f9ff11d45babf2eff5fe12281d1ac31"),
        Published(_ODIN + "fhtsw1m3qxlwj6h/LSUN.tar.gz?dl=1", "md5:458a0a0ab8e5f1cb4516d7400568e460"),
        Published(_ODIN + "moqh2wh8696c3yl/LSUN_resize.tar.gz?dl=1", "md5:278b7b31c8cb7e804a1465a8ce03a2dc"),
        Published(_ODIN + "ssz7qxfqae0cca5/iSUN.tar.gz?dl=1", "md5:be77b0f2c26fda898afac5f99645ee70"),
    ),
    "frost": tuple(Published(_FROST + name, f"sha256:{digest}") for name, digest in FROST.items()),
}
_FOLDER = {"odin": "ood"}  # name -> folder, where evaluation reads another name


def fetch_files(name: str, out: str | Path | None = None, *, mirror: str | None = None) -> dict[str, Any]:
    """Download a published data set.

    Existing files with the right checksum are not fetched again. For an unpacked archive a note keeps its checksum and
    its files; the archive is fetched again if one of them is missing.

    Args:
        name: A key of ``FILES``.
        out: Folder to fill; by default ``$FASTREG_DATA/<name>``, else ``./data/<name>``.
        mirror: Base address of a server that holds the same file names, for machines without internet.

    Returns:
        {"path": the folder, "fetched": names of the files downloaded}.

    Raises:
        InputError: The name is unknown.
        RunError: A download stops (the same call continues it), a checksum differs, or the folder cannot be written.
    """
    if name not in FILES:
        raise unknown("download", name, FILES)
    folder = Path(out or Path(os.environ.get("FASTREG_DATA") or "data") / _FOLDER.get(name, name))
    fetched = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for published in FILES[name]:
            note = folder / f".{published.name}.fetched"
            checksum, *files = note.read_text().split("\0") if note.is_file() else [""]
            if checksum == published.checksum and all((folder / name).is_file() for name in files):
                continue
            file = _retrieve(published, folder, mirror)
            if file.name.endswith(".tar.gz"):
                note.write_text("\0".join([published.checksum, *_unpack(file, folder)]))
                file.unlink()
            fetched.append(published.name)
    except OSError as error:
        raise RunError(f"cannot write to {folder}: {error.strerror or error}; free some space, or set `out`.") from None
    return {"path": str(folder), "fetched": fetched}


def _retrieve(published: Published, folder: Path, mirror: str | None) -> Path:
    try:
        import pooch
    except ImportError:
        raise InputError("downloads need pooch: pip install pooch") from None
    pooch.get_logger().setLevel("ERROR")
    url = f"{mirror.rstrip('/')}/{published.name}" if mirror else published.url
    partial = folder / f"{published.name}.part"

    def resume(url: str, output: Any, _) -> None:
        _download(url, partial)
        os.replace(partial, output)

    try:
        return Path(pooch.retrieve(url, published.checksum, published.name, folder, downloader=resume))
    except ValueError as error:
        if "hash" not in str(error):
            raise
        raise RunError(
            f"{published.name} from {url} is not the published file (its checksum differs): fetch it again, or set "
            f"`mirror` to another server."
        ) from None


def _download(url: str, partial: Path) -> None:
    """Download ``url`` to ``partial``, continuing after its last byte."""
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-", "User-Agent": "fastreg"})
    total = None
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            if answer.status != 206:  # the server sends the whole file
                done = 0
            length = answer.headers.get("Content-Length")
            whole = answer.headers.get("Content-Range", "").rpartition("/")[2]  # has the total if there is no length
            total = done + int(length) if length else int(whole) if whole.isdecimal() else None
            mega = 1 << 20
            with (
                open(partial, "ab" if done else "wb") as file,
                progress(f"fetch {partial.stem}", total and -(-total // mega), "MB", done // mega) as bar,
            ):
                while block := answer.read(mega):
                    file.write(block)
                    done += len(block)
                    bar.advance(1)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # the file is complete
            return
        raise RunError(
            f"cannot fetch {url}: the server answers {error.code} {error.reason}; set `mirror` to another."
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise RunError(f"fetching {url} stopped ({reason}): the same command continues it.") from None
    if total is not None and done < total:
        raise RunError(f"fetching {url} stopped at {done:,} of {total:,} bytes: the same command continues it.")


def _unpack(archive: Path, folder: Path) -> list[str]:
    """Unpack beside the target, then move each top-level entry into place; returns the names of the files."""
    partial = Path(tempfile.mkdtemp(prefix=".unpack.", dir=folder))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        files = [str(path.relative_to(partial)) for path in sorted(partial.rglob("*")) if path.is_file()]
        for entry in partial.iterdir():
            if (folder / entry.name).is_dir():
                shutil.rmtree(folder / entry.name)
            os.replace(entry, folder / entry.name)
        return files
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RunError(f"cannot unpack {archive}: {error}; remove it and fetch it again.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
