"""No random crop and flip: training images are those of the evaluation.

``Method.crop`` is False, so the loader has no random crop.

Source: Chun et al. 2020, table 1.
Cost: none.
Example: ``fastreg train cifar100 --reg no_crop_flip``.
"""

from __future__ import annotations

from fastreg.methods.base import Component, MethodContext


def no_crop_flip(context: MethodContext) -> Component:
    return Component("no_crop_flip", flip=False, crop=False)
