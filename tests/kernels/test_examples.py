"""The training loops of the READMEs, run unchanged."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from tests.support import ROOT, peer, write_tiny_imagenet

SIDE, CLASSES = 64, 4


def block(readme: str, words: str) -> str:
    """The one Python block of ``readme`` that contains ``words``."""
    found = [text for text in re.findall(r"```python\n(.*?)```", (ROOT / readme).read_text(), re.S) if words in text]
    assert len(found) == 1, f"{readme} has {len(found)} Python blocks with {words!r}"
    return found[0]


def run(code: str, **given: Any) -> dict[str, Any]:
    namespace: dict[str, Any] = {"device": torch.device("cpu"), **given}
    exec(compile(code, "readme", "exec"), namespace)
    return namespace


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, CLASSES)
    )


def trained(result: dict[str, Any], images: str) -> None:
    """The last step has a finite loss and gradients, and images and targets have the documented form."""
    assert result["loss"].isfinite()
    assert result["loss"].dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in result["model"].parameters())
    assert next(result["model"].parameters()).grad.abs().sum() > 0
    x, targets = result[images], result["targets"]
    assert x.dtype == torch.bfloat16
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x.abs().max() < 3  # normalized, not bytes
    assert targets.a.shape == targets.b.shape == targets.lam.shape == x.shape[:1]


@pytest.mark.parametrize(("readme", "images"), [("README.md", "inputs"), ("kernels/README.md", "images")])
def test_a_plain_loop(readme, images):
    side = 224 if readme == "README.md" else SIDE  # the size in its loop
    bytes_ = torch.randint(0, 256, (2, 4, side, side, 3), dtype=torch.uint8)
    loader = [(x, torch.arange(4)) for x in bytes_]
    if readme != "README.md":
        loader = [(*batch, torch.arange(4) + 4 * i) for i, batch in enumerate(loader)]
    model = small_model()
    before = next(model.parameters()).detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    code = block(readme, "BatchAugment" if readme == "README.md" else "indices in loader")
    optimizer.zero_grad = lambda: None  # keep the last gradients: one loop clears them after the step
    trained(run(code, loader=loader, model=model, optimizer=optimizer), images)
    assert not torch.equal(next(model.parameters()).detach(), before)


def test_timms_loop(tmp_path):
    peer("timm")
    root = write_tiny_imagenet(tmp_path, classes=CLASSES, train=4, val=1)
    code = block("kernels/README.md", "fast_collate")
    result = run(code, root=root, size=SIDE, batch_size=8, workers=0)
    trained(result, "images")
    assert result["model"].bn1.num_batches_tracked == 2
    assert len(result["optimizer"].state) > 0
    assert result["mixup_fn"].step == 2
    assert result["images"].shape == (8, 3, SIDE, SIDE)
    assert len(result["labels"].unique()) > 1
