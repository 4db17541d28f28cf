"""The paper's baseline: random crop and flip only.

Source: Chun et al. 2020, section 3.
Cost: none.
Example: ``fastreg train imagenet --reg none``.
"""

from __future__ import annotations

from fastreg.methods.base import Component, MethodContext


def none(context: MethodContext) -> Component:
    return Component("none")
