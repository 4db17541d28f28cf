"""Which folder is a run's, a new one or that of a run that goes on, and what must be as it was."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from fastreg.distributed import World, raise_on_all_ranks
from fastreg.errors import InputError
from fastreg.pipelines import check_fingerprint
from fastreg.training.config import Config, to_dict

# settings that a resumed run may change without becoming another run
_FREE = {"data_dir", "loader", "workers", "device", "output", "name", "log_interval", "recovery_interval", "profile"}
_FREE |= {"log_tensorboard", "command", "loader_used"}
_FREE |= {"world_size", "batch_size", "grad_accum_steps"}  # shares of the global batch, which must stay
# settings that the weights or the optimiser's state belong to
_FIXED = {"model", "stem", "opt", "norm_weight_decay"}
_FINGERPRINTS = {"training": "data_fingerprint", "validation": "val_fingerprint"}


def run_folder(config: Config, resume: str | None, place: World, allow: bool = False) -> tuple[Path, bool]:
    """``(folder, whether it holds a run to resume)``, decided by rank 0 and agreed by all."""
    chosen: list[Any] = [None]
    with raise_on_all_ranks(place):
        if place.rank == 0:
            chosen = [choose_folder(config, resume, place.size, allow)]
    if place.size > 1:
        dist.broadcast_object_list(chosen, src=0)
    return chosen[0]


def choose_folder(config: Config, resume: str | None, processes: int = 1, allow: bool = False) -> tuple[Path, bool]:
    """:func:`run_folder` in one process. Raises InputError for a path that holds no run, or a name that is taken.

    "auto" is the newest run of the name with these settings; where there is none, or others are allowed, the newest.
    """
    base = config.name or default_name(config)
    root = Path(config.output)
    if resume not in (None, "auto"):
        return run_at(resume), True
    number = 1
    while (root / _numbered(base, number + 1)).exists():
        number += 1
    newest = root / _numbered(base, number)
    if resume == "auto":
        namesakes = (root / _numbered(base, k) for k in range(0 if allow else number, 0, -1))
        new = {**to_dict(config), "global_batch": global_batch(config, processes)}
        folder = next((one for one in namesakes if not _differing(_settings(one), new, new.keys())), newest)
        return folder, (folder / "last.pt").is_file()
    if (newest / "config.json").exists():
        if config.name:
            raise InputError(f"{newest} exists: continue it with --resume auto, or give another --name.")
        return root / _numbered(base, number + 1), False
    return newest, False


def run_at(path: str) -> Path:
    """The run folder of ``--resume PATH``. Raises InputError where there is no checkpoint."""
    folder = Path(path).parent if Path(path).name == "last.pt" else Path(path)
    if not (folder / "last.pt").is_file():
        raise InputError(f"--resume {path}: no last.pt there; give a run folder, or --resume auto.")
    return folder


def settings_at(path: str) -> dict[str, Any]:
    """config.json of the run of ``--resume PATH``. Raises InputError where there is none."""
    folder = run_at(path)
    settings = _settings(folder)
    if not all(isinstance(settings.get(name), int) for name in ("epochs", "batch_size", "global_batch")):
        raise InputError(
            f"--resume {path}: {folder / 'config.json'} is missing or damaged: put back a copy, or give the "
            "run's flags with --resume auto."
        )
    return settings


def _settings(folder: Path) -> dict[str, Any]:
    """A run's config.json; nothing where it is missing or damaged."""
    try:
        settings = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def command_to_continue(what: str, folder: Path, place: World) -> str:
    """The command that goes on with a stopped run of ``fastreg train WHAT``, on as many processes."""
    command = f"fastreg train {what} --resume {shlex.quote(str(folder))}"
    if place.size == 1:
        return command
    if int(os.environ.get("LOCAL_WORLD_SIZE", place.size)) < place.size:  # on many nodes, whose names are torchrun's
        return f"torchrun ... -m {command}"
    return f"{command} --gpus {place.size}"


def _numbered(base: str, number: int) -> str:
    return base if number == 1 else f"{base}-{number}"


def default_name(config: Config) -> str:
    smoothing = f"-ls{config.ls:g}" if config.ls else ""
    model = config.model.replace(":", "-").replace("/", "-")
    return f"{config.dataset}-{model}-{config.reg}{smoothing}"


def global_batch(config: Config, processes: int) -> int:
    return (config.batch_size or 0) * config.grad_accum_steps * processes


def describe(config: Config, source: Any, val_source: Any, place: World, **more: Any) -> dict[str, Any]:
    """The resolved config that config.json and every checkpoint carry."""
    return {
        **to_dict(config),
        "global_batch": global_batch(config, place.size),
        "num_classes": len(source.classes),
        "classes": list(source.classes),
        "mean": list(source.mean),
        "std": list(source.std),
        "sample": source.is_sample,
        "data_fingerprint": source.fingerprint,
        "val_fingerprint": val_source.fingerprint,
        "world_size": place.size,
        **more,
    }


def refuse_changes(old: dict[str, Any], new: dict[str, Any], folder: Path, allow: bool) -> None:
    """A resumed run must be the same run: raise InputError naming what differs, unless told to go on."""
    for split, key in _FINGERPRINTS.items():
        if key in old:
            check_fingerprint(old[key], new[key], f"{new['data_dir'] or new['dataset']} ({split}) of {folder}")
    differing = _differing(old, new, old.keys() | new.keys())
    if differing & _FIXED:
        what = ", ".join(f"{key} {old.get(key)}" for key in sorted(differing & _FIXED))
        raise InputError(
            f"{folder} was started with {what}, and its checkpoint fits nothing else: use the same, or start a new run "
            "with --name."
        )
    if differing and not allow:
        what = ", ".join(f"{key} {old.get(key)} then, {new.get(key)} now" for key in sorted(differing))
        raise InputError(f"{folder} was started with other settings ({what}): use them, or add --allow-changes.")


def _differing(old: dict[str, Any], new: dict[str, Any], keys: Iterable[str]) -> set[str]:
    """Those of ``keys`` that make another run and are not the same in both."""
    return {key for key in keys if _plain(old.get(key)) != _plain(new.get(key))} - _FREE - {*_FINGERPRINTS.values()}


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value
