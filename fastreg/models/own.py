"""A user's own model: ``package.module:function``, from an installed package or the current folder.

The function runs the user's code. So its name is only ever taken from the user, never from a checkpoint.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from fastreg.errors import InputError, unknown

RESERVED = ("timm", "torchvision", "robustbench")  # prefixes of other names


def is_own(name: str | None) -> bool:
    """Whether a model's name is ``package.module:function``."""
    module, colon, function = (name or "").partition(":")
    words = [*module.split("."), *function.split(".")]
    return bool(colon) and module not in RESERVED and all(word.isidentifier() for word in words)


def confirm_own(recorded: str, given: str | None, where: str) -> None:
    """Raise InputError for an own model that only a file names: the user has to name it too."""
    if given is None:
        raise InputError(
            f"{where} is of your own model {recorded}, and code that a file names is not run: give that name as "
            f"`model` too."
        )


def build_own(name: str, num_classes: int | None, kw: dict[str, Any]) -> nn.Module:
    """Call a user's function.

    Args:
        name: ``package.module:function``.
        num_classes: passed to the function if it takes it; None: the function decides.
        kw: further arguments.

    Returns:
        The function's model. An nn.Module in place of a function is returned as it is.

    Raises:
        InputError: no such module or function, an error in it, or a result that is no nn.Module.
    """
    module, _, attribute = name.partition(":")
    make = _imported(name, module)
    for word in attribute.split("."):
        if not hasattr(make, word):
            raise unknown(f"`model` {name}: name in {module}", word, [n for n in dir(make) if not n.startswith("_")])
        make = getattr(make, word)
    if isinstance(make, nn.Module):
        return make
    if not callable(make):
        raise InputError(f"`model` {name} is {type(make).__name__}: name a function that returns an nn.Module.")
    given = {"num_classes": num_classes} if num_classes is not None and _takes(make, "num_classes") else {}
    try:
        net = make(**given, **kw)
    except Exception as error:  # a function may raise anything
        raise InputError(f"`model` {name} fails ({_why(error)}): mend that function.") from error
    if not isinstance(net, nn.Module):
        raise InputError(f"`model` {name} returns {type(net).__name__}: name a function that returns an nn.Module.")
    return net


def _imported(name: str, module: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)  # as python -m: an installed command has no current folder on its path
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"`model` {name}: there is no module {error.name!r}: give package.module:function of an installed package "
            f"or of this folder, or timm:NAME, torchvision:NAME, robustbench:NAME."
        ) from error
    except Exception as error:
        raise InputError(f"`model` {name}: {module} cannot be imported ({_why(error)}): mend that module.") from error


def _takes(make: Callable[..., Any], argument: str) -> bool:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # of some built-in callables
        return False
    return any(one.name == argument or one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
