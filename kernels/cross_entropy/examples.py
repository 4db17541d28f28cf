"""What the registries of the losses share: sizes, arguments, traffic, and types of the kernels' arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastreg.kernels.types import Targets

# name: (batch, classes) small, large
SIZES = {"1000": ((6, 1000), (1024, 1000)), "10": ((33, 10), (4096, 10)), "37": ((5, 37), (1024, 37)),
          "21848": ((3, 8200), (4096, 21848)), "21841": ((3, 8203), (4096, 21841))}  # fmt: skip


def pair_example(B: int, C: int, device, dtype: torch.dtype) -> dict[str, Any]:
    g = torch.Generator().manual_seed(C)
    a, b = torch.randint(0, C, (2, B), generator=g)
    b[0] = a[0]
    a[-1] = b[-1] = -100
    targets = Targets(a, b, torch.rand(B, generator=g))
    logits = (torch.randn(B, C, generator=g) * 4).to(device, dtype)
    return {"logits": logits, "targets": Targets(*(t.to(device) for t in targets)), "label_smoothing": 0.1}


Row = tuple[str, dict[str, Any], bool]  # size, arguments besides logits and targets, whether targets are [B, C]


def example_of(row: Row, distribution: bool = False) -> Callable[..., dict[str, Any]]:
    """The function that makes the arguments of a row; float targets are in [0, 1], or sum to about 1 per sample."""
    size, more, dense = row

    def example(device="cpu", small: bool = True) -> dict[str, Any]:
        B, C = SIZES[size][0 if small else 1]
        g = torch.Generator().manual_seed(C)
        case = pair_example(B, C, device, torch.float32 if small else torch.bfloat16) | more
        if dense:
            case["targets"] = torch.rand(B, C, generator=g).mul(2 / C if distribution else 1).to(device)
        if "class_weight" in more:
            case["class_weight"] = (torch.rand(C, generator=g) * 2).to(device)
        return case

    return example


def with_gradient(loss, logits: Tensor, **arguments) -> tuple[Tensor, ...]:
    """The results of a loss, and the gradient of its mean."""
    logits = logits.detach().requires_grad_()
    results = loss(logits, **arguments)
    results = results if isinstance(results, tuple) else (results,)
    results[0].mean().backward()
    assert logits.grad is not None
    return *(r.detach() for r in results), logits.grad


def logit_bytes(arguments: dict[str, Any]) -> int:
    """Forward: logits once. Backward: logits once, their gradient once."""
    logits = arguments["logits"]
    return 3 * logits.numel() * logits.element_size()


SIGNATURE = {
    **dict.fromkeys(("logits", "out"), "*bf16"),
    **dict.fromkeys(("a_ptr", "b_ptr"), "*i64"),
    **dict.fromkeys(("lam_ptr", "eps_ptr", "loss_ptr", "lse_ptr", "weight_ptr", "hit_ptr", "confidence_ptr"), "*fp32"),
    **dict.fromkeys(("grad", "total_ptr"), "*fp32"),
    "smoothing": "fp32",
    "B": "i32",
    "grad_stride": "i32",
}
