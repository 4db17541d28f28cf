"""The manifest of a corrupted set: ``corrupted.json``, and what its shards have finished until then.

Shard 2 of 8 lists its finished conditions in ``corrupted.2-of-8.json``. A reader joins all these files, so a set is
complete when its last shard is; that shard writes ``corrupted.json`` and removes the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastreg.errors import InputError
from fastreg.files import write_json
from fastreg.shard import Shard, shard_in

MANIFEST = "corrupted.json"
ABSENT: dict[str, Any] = {"settings": None, "wanted": [], "environments": [], "parts": {}}


def read_manifest(root: Path) -> dict[str, Any] | None:
    """The joined manifest of a folder; None if it has none.

    ``settings``; ``wanted``: the requested conditions in order; ``environments``; ``parts``: the rows of the finished
    conditions; ``shards``: the number of shards that write the set, None if there are none, and ``requested``: their
    conditions.

    Raises:
        InputError: a file cannot be read, or shards were started with different settings, conditions or counts.
    """
    files = shard_files(root)
    base = _load(root / MANIFEST) if (root / MANIFEST).is_file() else None
    if base is None and not files:
        return None
    joined = base or {**ABSENT, "environments": [], "parts": {}}
    joined.setdefault("wanted", list(joined["parts"]))  # absent in files of earlier versions
    first: dict[str, Any] | None = None
    for path, shard in files:
        if not path.exists():
            return read_manifest(root)  # another process has joined the shards
        part = _load(path)
        first = first or part
        alike = part["settings"] == (joined["settings"] or first["settings"]) and part["wanted"] == first["wanted"]
        if not alike or shard.total != files[0][1].total:
            raise InputError(
                f"{root} holds shards of different commands ({files[0][0].name} and {path.name}): remove those that "
                f"do not belong together."
            )
        joined["settings"] = part["settings"]
        for key in shard.own(part["wanted"]):
            joined["parts"].pop(key, None)
        for key, row in part["parts"].items():
            made = part["environments"][row["environment"]]
            if made not in joined["environments"]:
                joined["environments"].append(made)
            joined["parts"][key] = {**row, "environment": joined["environments"].index(made)}
    if first is not None:
        joined["wanted"] = union(joined["wanted"], first["wanted"])
        joined["parts"] = {key: joined["parts"][key] for key in joined["wanted"] if key in joined["parts"]}
    shards = {"shards": files[0][1].total, "requested": first["wanted"]} if first else {"shards": None, "requested": []}
    return {**joined, **shards}


def union(first: Iterable[str], second: Iterable[str]) -> list[str]:
    """Both without repetition, in order."""
    return list(dict.fromkeys([*first, *second]))


def shard_files(root: Path) -> list[tuple[Path, Shard]]:
    """The manifests of unfinished shards in a folder, in the shards' order."""
    found = [(path, shard) for path in root.glob("corrupted.*-of-*.json") if (shard := shard_in(path.name))]
    return sorted(found, key=lambda pair: (pair[1].total, pair[1].number))


def shard_path(root: Path, shard: Shard) -> Path:
    return root / f"corrupted.{shard.of}.json"


def write_manifest(root: Path, manifest: dict[str, Any], shard: Shard | None = None) -> None:
    """Write ``corrupted.json``, or the file of one shard."""
    keys = ("settings", "wanted", "environments", "parts")
    write_json(shard_path(root, shard) if shard else root / MANIFEST, {key: manifest[key] for key in keys})


def join_shards(root: Path) -> None:
    """Replace the files of the shards by ``corrupted.json`` if all are finished."""
    files = shard_files(root)
    manifest = read_manifest(root)
    if manifest is not None and not unfinished_shards(manifest):
        write_manifest(root, manifest)
        for path, _ in files:
            path.unlink(missing_ok=True)


def unfinished_shards(manifest: dict[str, Any]) -> list[str]:
    """The shards that have not finished, such as "2/8"."""
    if manifest["shards"] is None:
        return []
    shards = (Shard(number, manifest["shards"]) for number in range(1, manifest["shards"] + 1))
    return [str(shard) for shard in shards if not set(shard.own(manifest["requested"])) <= set(manifest["parts"])]


def check_complete(root: Path, manifest: dict[str, Any], keys: Iterable[str]) -> None:
    """Raise InputError if conditions ``keys`` of a set were requested and are not finished."""
    asked = set(keys)
    lost = [key for key in manifest["wanted"] if key in asked and key not in manifest["parts"]]
    if not lost:
        return
    some = f"{lost[0]}" if len(lost) == 1 else f"{len(lost)} conditions, such as {lost[0]}"
    names = unfinished_shards(manifest)
    if names:
        listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        which = f"shard {listed} has" if len(names) == 1 else f"shards {listed} have"
        raise InputError(
            f"{root} is incomplete, it lacks {some}: {which} not finished; run {'it' if len(names) == 1 else 'them'} "
            f"with the same `fastreg corrupt` command."
        )
    raise InputError(f"{root} is incomplete, it lacks {some}: run the same `fastreg corrupt` command again.")


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        rows = {"environments": list(found.get("environments", ())), "parts": dict(found.get("parts", {}))}
        return {**found, "settings": dict(found["settings"]), **rows}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        message = f"{path} does not describe how {path.parent} was made ({why}): restore it, or move it away."
        raise InputError(message) from error
