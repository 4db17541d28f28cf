"""No regularisation beside the random crop and flip: the paper's baseline.

Cost: nothing. Example: ``fastreg train imagenet --reg none``.
"""

from __future__ import annotations

from fastreg.methods.base import Part, Setting


def none(setting: Setting) -> Part:
    return Part("none")
