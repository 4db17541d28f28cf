"""State dicts in the files of other training scripts: found under any key or prefix, and compared with the model."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastreg import runs
from fastreg.errors import InputError, unknown

AVERAGED = re.compile(r"(^|[._])(ema|avg|averaged?|average|swa|shadow)", re.IGNORECASE)
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # heads of GoogLeNet and Inception for training only
DEPTH = 8  # of nested dicts


class Section(NamedTuple):
    """The tensors below one prefix of a file's names, if the model has them."""

    key: str  # the prefix without its last dot; empty: the whole file
    tensors: dict[str, Tensor]  # by the model's names
    missing: list[str]
    unknown: list[str]

    @property
    def fits(self) -> bool:
        return not self.missing and not self.unknown


def fill(
    net: nn.Module, path: str | Path, model: str, key: str | None = None, content: Any = None
) -> tuple[str, list[str]]:
    """Load the weights of a file into a model.

    Args:
        net: the model.
        path: a file of ``torch.save`` or safetensors. The state dict may be in nested dicts, and its names may have a
            common prefix (``state_dict``, ``model.``, ``module.``, ``_orig_mod.``).
        model: the model's name, for messages.
        key: the dict or prefix of the weights, such as "state_dict_ema", if the file has several.
        content: the content of the file, if it has been read.

    Returns:
        ``(key, others)``: the key of the loaded weights, and other keys that fit too. Without ``key`` the model's own
        weights have precedence over averaged weights.

    Raises:
        InputError: the file has no weights, does not fit the model, has several state dicts that fit, or is a
            checkpoint of fastreg.
    """
    content = read(Path(path)) if content is None else content
    if key is None and isinstance(content, dict) and content.get("format") == runs.FORMAT:
        raise InputError(  # without its config, it would be measured at another size and normalization
            f"{path} is a fastreg checkpoint, which knows its model and image size: run `fastreg eval {path}`, without "
            f"`weights`."
        )
    names = dict(_flat(content))
    if not names:
        raise InputError(f"{path} is not a state dict (names to tensors): save it with torch.save(model.state_dict()).")
    sections = _sections(names, net.state_dict())
    fitting = {section.key: section for section in sections if section.fits}
    if key is not None:
        if not any(name == key or name.startswith(f"{key}.") for name in names):
            raise unknown("`weights_key`", key, _keys(names, fitting))
        below = [section for section in sections if section.key == key or section.key.startswith(f"{key}.")]
        fitting = {section.key: section for section in below if section.fits}
        sections = below or [_section(f"{key}.", names, net.state_dict())]
    if not fitting:
        raise _misfit(max(sections, key=lambda section: len(section.tensors)), path, model)
    plain = [name for name in fitting if not AVERAGED.search(name)] or list(fitting)
    if len(plain) > 1:
        raise InputError(
            f"{path} holds several weights that fit {model}: give one of {', '.join(plain)} as `weights_key`."
        )
    _load(net, fitting[plain[0]].tensors, path, model)
    return plain[0], [name for name in fitting if name != plain[0]]


def read(path: Path) -> Any:
    """The content of a file of ``torch.save`` or safetensors. Raises InputError if it cannot be read safely."""
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if path.is_file() and zipfile.is_zipfile(path):
        inside = {name.split("/", 1)[-1] for name in zipfile.ZipFile(path).namelist()}
        if "constants.pkl" in inside:
            raise InputError(
                f"{path} is a TorchScript archive, not a state dict: save model.state_dict(), or evaluate "
                f"torch.jit.load(...) in Python."
            )
        if "archive_format" in inside or any(name.endswith("serialized_exported_program.json") for name in inside):
            raise InputError(f"{path} is an exported program, not a state dict: save model.state_dict().")
    with torch.serialization.safe_globals([argparse.Namespace]):  # the settings beside the weights; holds data only
        return runs.load_tensors(path)


def _safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"no weights at {path}: give the path of a file.")
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise InputError(f"{path} needs safetensors, which is not installed: pip install safetensors.") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({error}): put back a copy of it.") from error


def _flat(content: Any, prefix: str = "", depth: int = DEPTH) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of nested dicts, names joined by dots."""
    if isinstance(content, dict) and depth:
        for name, value in content.items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
            else:
                yield from _flat(value, f"{prefix}{name}.", depth - 1)


def _sections(names: dict[str, Tensor], own: dict[str, Tensor]) -> list[Section]:
    """The sections of a file: the whole file, then each prefix below which one of the model's names is found."""
    prefixes = {"": None}
    for name in names:
        words = name.split(".")
        for cut in range(1, min(len(words), DEPTH)):
            if ".".join(words[cut:]) in own:
                prefixes[".".join(words[:cut]) + "."] = None
    return [_section(prefix, names, own) for prefix in prefixes]


def _section(prefix: str, names: dict[str, Tensor], own: dict[str, Tensor]) -> Section:
    below = {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}
    missing = [
        name
        for name in own
        if name not in below and not name.endswith("num_batches_tracked") and not name.startswith(AUXILIARY)
    ]
    return Section(
        prefix.removesuffix("."),
        {name: value for name, value in below.items() if name in own},
        missing,
        [name for name in below if name not in own and not name.startswith(AUXILIARY)],
    )


def _keys(names: dict[str, Tensor], fitting: dict[str, Section]) -> list[str]:
    return list(fitting) or list(dict.fromkeys(name.split(".")[0] for name in names))


def _misfit(section: Section, path: str | Path, model: str) -> InputError:
    where = f"{section.key} of {path}" if section.key else str(path)
    return InputError(
        f"{where} does not fit {model}: {_some('missing', section.missing)}, {_some('unknown', section.unknown)}; give "
        f"the `model` that these weights were trained with."
    )


def _some(what: str, names: Sequence[str]) -> str:
    shown = f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
    return f"{len(names)} tensors are {what}{shown}"


def _load(net: nn.Module, state: dict[str, Tensor], path: str | Path, model: str) -> None:
    own = net.state_dict()
    other = [name for name in state if own[name].shape != state[name].shape]
    head = last_layer(own)
    if other and all(name.startswith((f"{head}.", *AUXILIARY)) for name in other) and f"{head}.weight" in other:
        found, asked = len(state[f"{head}.weight"]), len(own[f"{head}.weight"])
        if state[f"{head}.weight"].shape[1:] == own[f"{head}.weight"].shape[1:]:
            raise WrongClasses(path, found, asked)
    if other:
        found_shape, needed = list(state[other[0]].shape), list(own[other[0]].shape)
        raise InputError(
            f"{path} does not fit {model}: {other[0]} is {found_shape}, not {needed}; "
            f"give the `model` that these weights were trained with."
        )
    net.load_state_dict(state, strict=False)


def last_layer(names: Iterable[str]) -> str:
    """The name of a classifier's last layer, from the names of its tensors."""
    return [name for name in names if not name.startswith(AUXILIARY)][-1].rpartition(".")[0]


class WrongClasses(InputError):
    """Raise InputError for weights whose last layer has another number of outputs than requested."""

    def __init__(self, path: str | Path, found: int, asked: int):
        super().__init__(
            f"{path} has {found} classes but the data has {asked}: evaluate it on the set it was trained for."
        )
        self.found, self.asked = found, asked
