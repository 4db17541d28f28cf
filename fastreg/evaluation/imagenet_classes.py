"""ImageNet's 1000 classes in the order of a model's outputs, without ImageNet on disk.

``imagenet_classes.txt`` has a line per class: its WordNet id, as ILSVRC 2012 names its folders (timm's
``imagenet_synsets.txt``), and a name (torchvision's ``categories``).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path


@cache
def imagenet_classes() -> dict[str, str]:
    """WordNet id to name, in the order of the outputs."""
    lines = Path(__file__).with_suffix(".txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


def are_imagenet(classes: Iterable[str], outputs: int) -> bool:
    """Whether class names are WordNet ids of ImageNet's, for a model with ImageNet's number of outputs."""
    known, names = imagenet_classes(), set(classes)
    return outputs == len(known) and bool(names) and names <= set(known)
