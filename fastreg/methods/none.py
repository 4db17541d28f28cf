"""No regularization beside the random crop and flip: the paper's baseline.

Cost: nothing. Example: ``fastreg train imagenet --reg none``.
"""

from __future__ import annotations

from fastreg.methods.base import Component, MethodContext


def none(context: MethodContext) -> Component:
    return Component("none")
