"""Without random crop and flip: each image is seen as the evaluation sees it (a row of the paper's CIFAR-100 table).

Cost: nothing. Example: ``fastreg train cifar100 --reg no_crop_flip``. ``Method.crop`` is False: the loader is built
without its random crop.
"""

from __future__ import annotations

from fastreg.methods.base import Component, MethodContext


def no_crop_flip(context: MethodContext) -> Component:
    return Component("no_crop_flip", flip=False, crop=False)
