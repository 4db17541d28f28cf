"""Frozen parameters: no gradient, and batch norms that keep their statistics."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from types import MethodType

from torch import nn

from fastreg.errors import InputError


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze parameters: they get no gradient, and batch norms of frozen parameters keep their statistics.

    Args:
        model: changed in place.
        patterns: names of parameters or modules with * and ?, such as "layer1" or "*.bn1", or a regular expression
            after "re:", such as "re:^(?!fc)". A regular expression is searched for in the names of parameters.

    Raises:
        InputError: a pattern matches no parameter, or is no regular expression.
    """
    names = [name for name, _ in model.named_parameters()]
    frozen: set[str] = set()
    for pattern in patterns:
        try:
            found = {name for name in names if _matches(name, pattern)}
        except re.error as error:
            raise InputError(f"`freeze` {pattern} is no regular expression ({error}).") from None
        if not found:
            known = list(dict.fromkeys(name.split(".")[0] for name in names))[:8]
            raise InputError(f"`freeze` {pattern} matches no parameter: there are {', '.join(known)}, {names[-1]} ...")
        frozen |= found
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    for prefix, module in model.named_modules():
        own = [f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if hasattr(module, "running_mean") and own and frozen.issuperset(own):
            module.train = MethodType(_stay_in_evaluation, module)
            module.eval()


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a module is a batch norm that :func:`freeze` has frozen."""
    return "train" in vars(module)


def _matches(name: str, pattern: str) -> bool:
    if pattern.startswith("re:"):
        return re.search(pattern[3:], name) is not None
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, f"{pattern}.*")


def _stay_in_evaluation(self: nn.Module, mode: bool = True) -> nn.Module:
    return nn.Module.train(self, False)
