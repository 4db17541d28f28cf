"""The registry rows of all corruptions, collected from the modules of their kernels."""

from __future__ import annotations

from fastreg.kernels.corruptions import MODULES, fields, pixels

OPS = tuple(op for module in (pixels, fields, *MODULES) for op in getattr(module, "OPS", ()))
