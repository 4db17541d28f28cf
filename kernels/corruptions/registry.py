"""The registry rows of the corruptions, which stand beside their kernels."""

from __future__ import annotations

from fastreg.kernels.corruptions import MODULES, fields, pixels

OPS = tuple(op for module in (pixels, fields, *MODULES) for op in getattr(module, "OPS", ()))
