"""What a run reads: the sets that belong together, how each is read, and images that it leaves out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg import runs
from fastreg.errors import InputError, RunError
from fastreg.training import Config, train
from tests.fastreg import tiny


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    tiny.shrink(monkeypatch, tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield monkeypatch
    torch.set_num_threads(threads)


def picture(rng) -> bytes:
    """A BMP, so that all are of one size in bytes."""
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).save(buffer, "BMP")
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path) -> Path:
    """Two classes: 8 + 8 pictures to train, 2 + 2 to validate."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for label in "ab":
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.bmp").write_bytes(picture(rng))
    return tmp_path / "data"


def settings(data: Path, **more) -> Config:
    chosen = {**tiny.settings("none", data.parent / "runs", data).__dict__, "color_jitter": 0.0, "lighting": 0.0}
    return Config(**{**chosen, "dataset": "folder", "data_dir": str(data), **more})


def run(config: Config, resume: str | None = None) -> tuple[Path, list[str]]:
    """The run's folder, and what it said."""
    lines: list[str] = []
    return train(config, resume=resume, say=lines.append), lines


@pytest.mark.parametrize(("split", "what"), [("train", "training"), ("val", "validation")])
def test_a_resumed_run_refuses_other_pixels_in_either_set(data, split, what):
    run(settings(data))
    run(settings(data, epochs=1), resume="auto")
    (data / split / "a" / "1.bmp").write_bytes(picture(np.random.default_rng(9)))
    with pytest.raises(InputError, match=rf"\({what}\) of .*fingerprint: 'content \w+' is now 'content \w+'"):
        run(settings(data), resume="auto")
