"""The settings of a run in a file, JSON or YAML: written by ``fastreg config``, read by ``fastreg train --config``."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

from fastreg.errors import InputError, unknown
from fastreg.training.config import TUPLES, Config
from fastreg.training.flag_aliases import FOREIGN
from fastreg.training.recipe_table import recipe_config

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", dict: "a table"}


def read_config(path: str | Path) -> dict[str, Any]:
    """Read settings from a file.

    A file with ``global_batch`` is a whole recipe: its ``lr`` is for that batch. Its ``batch_size`` is left out, so
    that any number of ranks shares the batch.

    Args:
        path: a .json file, such as a run's config.json, or a .yaml or .yml file; or a run folder.

    Returns:
        Settings of ``Config``, and names of timm and torchvision (flag_aliases.py), by name.

    Raises:
        InputError: the file cannot be read, or has an unknown name or a value of another kind.
    """
    path = Path(path)
    path = path / "config.json" if path.is_dir() else path
    content = _parse(path)
    if "data_fingerprint" in content:  # a run's config.json, which contains facts beside the settings
        content = {name: value for name, value in content.items() if name in Config.__dataclass_fields__}
    settings: dict[str, Any] = {}
    for name, value in content.items():
        if name not in Config.__dataclass_fields__ and name not in FOREIGN:
            raise unknown(f"setting in {path}:", str(name), [*Config.__dataclass_fields__, *sorted(FOREIGN)])
        if value is not None:
            settings[name] = _checked(name, value, path)
    if "global_batch" in settings:
        settings.pop("batch_size", None)
    return settings


def _parse(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"`config` {path} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if path.suffix == ".json":
            raise InputError(f"{path} is not JSON ({error.msg}, line {error.lineno}).") from None
        content = _yaml(text, path)
    if not isinstance(content, dict):
        raise InputError(f"{path} contains no settings: write one `name: value` in each line.")
    return content


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise InputError(f"{path} needs PyYAML, which is not installed: pip install pyyaml, or write JSON.") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise InputError(f"{path} is not YAML (line {line}).") from None


def _checked(name: str, value: Any, path: Path) -> Any:
    """The value of a setting in its own type. Raises InputError for another kind."""
    if name in TUPLES:
        listed = value if isinstance(value, list | tuple) else [value]
        kind = str if name == "freeze" else float
        return tuple(_as(kind, one, name, path) for one in listed)
    annotation = typing.get_type_hints(Config).get(name)
    if annotation is None:
        return value
    options = [typing.get_origin(one) or one for one in typing.get_args(annotation) if one is not type(None)]
    kind = typing.get_origin(annotation) or annotation
    kinds = [kind] if kind in _KINDS else options
    return _as(next((one for one in kinds if isinstance(value, one)), kinds[0]), value, name, path)


def _as(kind: type, value: Any, name: str, path: Path) -> Any:
    if kind is float and isinstance(value, str | int) and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-4 for a word
        except ValueError:
            pass
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise InputError(f"`{name}` in {path} is {value!r}: give {_KINDS[kind]}.")


def recipe_file(name: str, as_json: bool = False) -> str:
    """The settings of a recipe as the text of a file that :func:`read_config` reads.

    Args:
        name: a name of ``recipes.ALL``.
        as_json: JSON instead of YAML.

    Returns:
        The text. Its YAML has one setting in each line, with a JSON value.

    Raises:
        KeyError: an unknown recipe.
    """
    config = recipe_config(name)
    fields = {field: getattr(config, field) for field in Config.__dataclass_fields__}
    settings = {field: value for field, value in fields.items() if value is not None}
    if as_json:
        return json.dumps(settings, indent=2) + "\n"
    lines = [f"{field}: {json.dumps(value)}" for field, value in settings.items()]
    return "\n".join([f"# fastreg train {config.dataset} --config FILE; flags override the file", *lines]) + "\n"
