"""Automatic augmentation by torchvision, kornia and DALI, each with its own draws and its own law's defaults.

On a GPU torchvision and kornia draw one operation for a whole batch; called image by image they draw one per image, as
fastreg does. DALI splits the batch by operation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastreg.benchmarks.peers import need
from fastreg.benchmarks.timing import Call

LAWS = ("trivial_augment", "rand_augment")  # one operation per image, two at magnitude 9
Build = Callable[[list[Tensor]], Call]  # from the buffer sets, uint8 [B, H, W, 3] each


def auto_augment_peers(law: str, device: torch.device) -> dict[str, Build]:
    """Builders of calls by peer.

    Args:
        law: ``"trivial_augment"`` or ``"rand_augment"``.
        device: the device of the images.

    Returns:
        Peer to a function of the buffer sets, which raises ImportError where its package is missing.
    """
    build = {"torchvision loop": _torchvision_loop, "kornia loop": _kornia_loop, "DALI": _dali}
    if device.type == "cpu":
        build = {"torchvision on PIL": _torchvision_on_pil, **build}
    return {peer: partial(make, law) for peer, make in build.items()}


def _torchvision(law: str) -> Callable:
    transforms = need("torchvision.transforms")
    return transforms.TrivialAugmentWide() if law == "trivial_augment" else transforms.RandAugment(2, 9)


def _torchvision_on_pil(law: str, sets: list[Tensor]) -> Call:
    """From PIL images, as its decoder gives them, to one tensor, as its loader needs it."""
    from PIL import Image

    transform, to_tensor = _torchvision(law), need("torchvision.transforms.functional").pil_to_tensor
    images = [[Image.fromarray(x.numpy()) for x in batch] for batch in sets]
    return lambda i: torch.stack([to_tensor(transform(x)) for x in images[i]])


def _torchvision_loop(law: str, sets: list[Tensor]) -> Call:
    transform, planes = _torchvision(law), [batch.permute(0, 3, 1, 2).contiguous() for batch in sets]
    return lambda i: torch.stack([transform(x) for x in planes[i]])


def _kornia_loop(law: str, sets: list[Tensor]) -> Call:
    auto = need("kornia.augmentation.auto")
    transform = auto.TrivialAugment() if law == "trivial_augment" else auto.RandAugment(n=2, m=9)
    planes = [batch.permute(0, 3, 1, 2).contiguous() / 255 for batch in sets]
    return lambda i: torch.cat([transform(planes[i][k : k + 1]) for k in range(len(planes[i]))])


def _dali(law: str, sets: list[Tensor]) -> Call:
    """A pipeline of one operator, which reads the buffers where they are."""
    need("nvidia.dali")
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.auto_aug.rand_augment import rand_augment
    from nvidia.dali.auto_aug.trivial_augment import trivial_augment_wide

    gpu = sets[0].is_cuda
    batches = sets if gpu else [batch.numpy() for batch in sets]
    turn = [0]

    @pipeline_def(enable_conditionals=True)
    def pipe() -> Any:
        images = fn.external_source(
            source=lambda: batches[turn[0]], batch=True, device="gpu" if gpu else "cpu", layout="HWC", no_copy=gpu
        )
        return trivial_augment_wide(images) if law == "trivial_augment" else rand_augment(images, n=2, m=9)

    threads, number = torch.get_num_threads(), sets[0].get_device() if gpu else None
    built = pipe(batch_size=len(sets[0]), num_threads=threads, device_id=number, prefetch_queue_depth=1, seed=1)
    try:
        built.build()
    except RuntimeError as error:
        raise ImportError(f"DALI cannot run here ({str(error).splitlines()[0]})") from None

    def call(i: int) -> Any:
        turn[0] = i
        return built.run()

    return call
