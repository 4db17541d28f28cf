"""Choose the run folder (new or resumed) and check which settings may change on resume."""

from __future__ import annotations

import os
import shlex
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist

from fastreg import files, runs
from fastreg.distributed import World, raise_on_all_ranks
from fastreg.errors import InputError
from fastreg.models.own import is_own
from fastreg.pipelines import Source, check_fingerprint
from fastreg.training.config import Config, added_settings, to_dict

# settings that may change without making it another run
_FREE = {"data_dir", "loader", "workers", "device", "output", "name", "log_interval", "recovery_interval", "profile"}
_FREE |= {"log_tensorboard", "log_wandb", "command", "loader_used", "device_used", "data_root", "cache_dir", "cache_gb"}
_FREE |= {"torchcompile", "torchcompile_used"}
_FREE |= {"world_size", "batch_size", "grad_accum_steps"}  # shares of the global batch, which may not change
# settings that the weights or the optimizer's state depend on
_FIXED = {"model", "stem", "channels", "opt", "norm_weight_decay", "layer_decay", "model_kwargs", "freeze"}
_DEFAULTS = added_settings()
_FINGERPRINTS = {"training": "data_fingerprint", "validation": "val_fingerprint"}


@contextmanager
def run_folder(
    config: Config, resume: str | None, world: World, allow_changes: bool = False
) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Choose the run folder on rank 0, lock it for the length of the block, and read its checkpoint.

    Args:
        config: settings of the run.
        resume: None for a new run, "auto", or the path of a run folder.
        world: this rank.
        allow_changes: whether "auto" takes a run with other settings.

    Yields:
        The folder, and the checkpoint to continue from or None.

    Raises:
        InputError: the path contains no run, the name is taken, the folder is in use, or the checkpoint is damaged.
        RunError: the folder cannot be written.
    """
    with ExitStack() as locked:
        claimed: list[Any] = [None]
        with raise_on_all_ranks(world):
            if world.rank == 0:
                claimed = [locked.enter_context(claim_folder(config, resume, world.size, allow_changes))]
        if world.size > 1:
            dist.broadcast_object_list(claimed, src=0)
        folder, resumed = claimed[0]
        with raise_on_all_ranks(world):
            checkpoint = runs.load_checkpoint(folder / "last.pt") if resumed else None
        yield folder, checkpoint


@contextmanager
def claim_folder(
    config: Config, resume: str | None, world_size: int = 1, allow_changes: bool = False
) -> Iterator[tuple[Path, bool]]:
    """Choose a folder as :func:`choose_folder` does, and lock it for the length of the block.

    If another process has taken the folder of a new run without a ``name``, the run takes the next number.

    Raises:
        InputError: as :func:`choose_folder`; or another process has locked the only possible folder.
        RunError: the folder cannot be written.
    """
    taken: set[Path] = set()
    while True:
        folder, resumed = choose_folder(config, resume, world_size, allow_changes, taken)
        with ExitStack() as locked:
            try:
                locked.enter_context(files.lock(folder))
            except files.InUseError:
                if config.name or resumed or (resume == "auto" and not _is_new(folder, config, world_size)):
                    raise
                taken.add(folder)
                continue
            if resumed != (folder / "last.pt").is_file() if resume else (folder / "config.json").exists():
                continue  # another process has finished a run there in the meantime
            yield folder, resumed
            return


def choose_folder(
    config: Config,
    resume: str | None,
    world_size: int = 1,
    allow_changes: bool = False,
    taken: Container[Path] = (),
) -> tuple[Path, bool]:
    """The folder of a run, and whether it contains a run to resume.

    "auto" is the newest run of the name with these settings; if there is none, or with ``allow_changes``, the newest
    run of the name.

    Args:
        config: settings of the run.
        resume: None for a new run, "auto", or the path of a run folder.
        world_size: number of ranks.
        allow_changes: whether "auto" takes a run with other settings.
        taken: folders that other processes have locked.

    Raises:
        InputError: the path contains no run, or the name is taken.
    """
    base = config.name or default_name(config)
    root = Path(config.output)
    if resume not in (None, "auto"):
        return run_at(resume), True
    number = 1
    while (root / _numbered(base, number + 1)).exists():
        number += 1
    newest = root / _numbered(base, number)
    following = root / _numbered(base, number + 1)
    if resume == "auto":
        folders = (root / _numbered(base, k) for k in range(0 if allow_changes else number, 0, -1))
        newest = next((one for one in folders if not _is_new(one, config, world_size)), newest)
        return (following, False) if newest in taken else (newest, (newest / "last.pt").is_file())
    if (newest / "config.json").exists():
        if config.name:
            raise InputError(f"{newest} exists: continue it with `resume` auto, or give another `name`.")
        return following, False
    return following if newest in taken else newest, False


def _is_new(folder: Path, config: Config, world_size: int) -> bool:
    """Whether a folder contains no run with these settings."""
    new = {**to_dict(config), "global_batch": global_batch(config, world_size)}
    return bool(_differing(_settings(folder), new, new.keys()))


def run_at(path: str) -> Path:
    """The run folder of ``resume`` PATH. Raises InputError if it contains no last.pt."""
    folder = Path(path).parent if Path(path).name == "last.pt" else Path(path)
    if not (folder / "last.pt").is_file():
        raise InputError(f"`resume` {path}: no last.pt there; give a run folder, or auto.")
    return folder


def settings_at(path: str) -> dict[str, Any]:
    """config.json of the run of ``resume`` PATH. Raises InputError if it is missing or damaged."""
    folder = run_at(path)
    settings = _settings(folder)
    if not all(isinstance(settings.get(name), int) for name in ("epochs", "batch_size", "global_batch")):
        raise InputError(
            f"`resume` {path}: {folder / 'config.json'} is missing or damaged: put back a copy, or give the run's "
            "settings with `resume` auto."
        )
    return settings


def _settings(folder: Path) -> dict[str, Any]:
    """A run's config.json; empty if it is missing or damaged."""
    try:
        settings = files.read_json(folder / "config.json")
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def command_to_continue(dataset: str, folder: Path, world: World, model: str = "") -> str:
    """The command that continues a stopped run of ``fastreg train DATASET`` on as many processes."""
    command = f"fastreg train {dataset} --resume {shlex.quote(str(folder))}"
    command += f" --model {shlex.quote(model)}" if is_own(model) else ""  # never taken from the run
    if world.size == 1:
        return command
    if int(os.environ.get("LOCAL_WORLD_SIZE", world.size)) < world.size:  # several nodes of unknown names
        return f"torchrun ... -m {command}"
    return f"{command} --gpus {world.size}"


def _numbered(base: str, number: int) -> str:
    return base if number == 1 else f"{base}-{number}"


def default_name(config: Config) -> str:
    """The name of a run without a ``name``: data set, model, method and label smoothing."""
    smoothing = f"-ls{config.ls:g}" if config.ls else ""
    model = config.model.replace(":", "-").replace("/", "-")
    return f"{config.dataset}-{model}-{config.reg}{smoothing}"


def global_batch(config: Config, world_size: int) -> int:
    """Images per step of all ranks."""
    return (config.batch_size or 0) * config.grad_accum_steps * world_size


def describe(config: Config, train_set: Source, val_set: Source, world: World, **more: Any) -> dict[str, Any]:
    """The settings and facts that config.json and every checkpoint contain."""
    return {
        **to_dict(config),
        "global_batch": global_batch(config, world.size),
        "data_root": _absolute(str(config.data_dir or train_set.root)),
        "num_classes": len(train_set.classes),
        "classes": list(train_set.classes),
        "mean": list(train_set.mean),
        "std": list(train_set.std),
        "sample": train_set.is_sample,
        "data_fingerprint": train_set.fingerprint,
        "val_fingerprint": val_set.fingerprint,
        "world_size": world.size,
        **more,
    }


def _absolute(location: str) -> str:
    return location if "://" in location else os.path.abspath(location)


def refuse_changes(old: dict[str, Any], new: dict[str, Any], folder: Path, allow_changes: bool) -> None:
    """Check that a resumed run has the data and settings it was started with.

    Raises:
        InputError: the data differ, a setting differs that the checkpoint depends on, or another setting differs
            without ``allow_changes``.
    """
    for split, key in _FINGERPRINTS.items():
        if key in old:
            check_fingerprint(old[key], new[key], f"{new['data_dir'] or new['dataset']} ({split}) of {folder}")
    differing = _differing(old, new, old.keys() | new.keys())
    if differing & _FIXED:
        what = ", ".join(f"{key} {old.get(key)}" for key in sorted(differing & _FIXED))
        raise InputError(
            f"{folder} was started with {what}, and its checkpoint fits nothing else: use the same, or start a new run "
            "with another `name`."
        )
    if differing and not allow_changes:
        then = {**_DEFAULTS, **old}
        what = ", ".join(f"{key} {then.get(key)} then, {new.get(key)} now" for key in sorted(differing))
        raise InputError(f"{folder} was started with other settings ({what}): use them, or add `allow_changes`.")


def _differing(old: dict[str, Any], new: dict[str, Any], keys: Iterable[str]) -> set[str]:
    """Those of ``keys`` whose values differ and make it another run."""
    old = {**_DEFAULTS, **old} if old else {}
    return {key for key in keys if _plain(old.get(key)) != _plain(new.get(key))} - _FREE - {*_FINGERPRINTS.values()}


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value
