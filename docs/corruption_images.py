"""Images for the documentation of corruptions: one strip per corruption, with its five severities."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

SHOWN = 160  # pixels per image in a strip


def images() -> dict[str, bytes]:
    """JPEG strips by path; the image is scikit-image's chelsea (public domain)."""
    import torch
    from skimage import data

    from fastreg.errors import InputError
    from fastreg.kernels import CORRUPTIONS, EXTRA_CORRUPTIONS, corrupt
    from fastreg.pipelines import load_frost

    square = Image.fromarray(data.chelsea()[:, 75:375]).resize((224, 224), Image.Resampling.BICUBIC)
    batch = torch.from_numpy(np.asarray(square)[None].copy())
    try:
        textures = load_frost()
    except InputError as error:
        raise SystemExit(f"docs: {error}") from None
    found = {}
    for name in (*CORRUPTIONS, *EXTRA_CORRUPTIONS):
        row = [
            corrupt(batch, name, severity, indices=torch.zeros(1, dtype=torch.int64), textures=textures)[0]
            for severity in (1, 2, 3, 4, 5)
        ]
        strip = Image.fromarray(np.concatenate([np.asarray(one) for one in row], axis=1))
        buffer = io.BytesIO()
        strip.resize((5 * SHOWN, SHOWN), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
        found[f"corruptions/{name}.jpg"] = buffer.getvalue()
    return found
