"""One more loader is a module with a decoder and a row of ``LOADERS``: every command finds it through the table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from fastreg import doctor
from fastreg.cli import main
from fastreg.errors import InputError
from fastreg.pipelines import LOADERS, LoaderSpec, make_loader, open_dataset
from fastreg.pipelines.loader_table import loader_help, loader_names
from tests.support import train_words, write_tiny_imagenet

MODULE = '''
from fastreg.pipelines.decode_pillow import PillowDecoder


class NegativeDecoder:
    """Pillow's pixels, inverted, so that a test recognizes the decoder."""

    def __init__(self, source, settings):
        self.pillow = PillowDecoder(source, settings)

    def run(self, requests):
        for done in self.pillow.run(requests):
            yield done._replace(images=255 - done.images)

    def close(self):
        self.pillow.close()
'''


@pytest.fixture
def dummy(tmp_path, monkeypatch):
    """The module on the path and its row in the table, as a contributor would add them."""
    (tmp_path / "decode_dummy.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    row = LoaderSpec(
        "dummy",
        "decode_dummy:NegativeDecoder",
        "inverted pixels",
        trains_on=("images",),
        evaluates_on=("images",),
        title="The dummy's package",
        package="decode_dummy",
        distributions=("fastreg-decode-dummy",),
        extra="dummy",
    )
    monkeypatch.setitem(LOADERS, "dummy", row)
    yield row
    sys.modules.pop("decode_dummy", None)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_imagenet(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("train", [True, False])
def test_make_loader_takes_its_decoder(dummy, tiny, train):
    source = open_dataset("imagenet", "train", tiny)
    kw = {"train": train, "batch_size": 8, "size": 32, "seed": 3}
    with make_loader(source, loader="dummy", **kw) as a, make_loader(source, loader="folder", **kw) as b:
        assert a.name == "dummy"
        for mine, pillow in zip(a.batches(), b.batches(), strict=True):
            assert torch.equal(mine.images, 255 - pillow.images)
            assert torch.equal(mine.indices, pillow.indices)


def test_auto_selects_it_by_its_row(dummy, tiny, monkeypatch):
    source = open_dataset("imagenet", "train", tiny)
    kw = {"train": True, "batch_size": 8, "size": 32}
    preferred = dummy._replace(auto_for=("images",), auto_reason="inverted pixels are pretty")
    monkeypatch.setitem(LOADERS, "dummy", preferred)
    loader = make_loader(source, **kw)
    assert (loader.name, loader.why) == ("dummy", "inverted pixels are pretty")
    monkeypatch.setitem(LOADERS, "dummy", preferred._replace(package="nowhere.to.be.found"))
    loader = make_loader(source, **kw)
    assert loader.name == "folder"
    assert "[dummy]" in loader.why
    assert "inverted pixels are pretty" in loader.why


def test_what_it_cannot_read_is_refused_by_the_table(dummy, data):
    cifar = open_dataset("cifar100", "val", data / "cifar100")
    with pytest.raises(
        InputError, match=r"'dummy' evaluates encoded image files; cifar100 at .* consists of small arrays"
    ):
        make_loader(cifar, loader="dummy", train=False, batch_size=8, size=32)


def test_help_and_doctor_name_it(dummy):
    assert loader_names()[-1] == loader_names(evaluation=True)[-1] == "dummy"
    assert "synthetic" in loader_help()
    assert loader_help(evaluation=True) == "auto, folder, dali, ffcv, resident or dummy"
    (finding,) = [finding for finding in doctor._extras() if finding.what == "The dummy's package"]
    assert finding.found == "missing"
    assert "[dummy]" in finding.mend


def run(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fastreg", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_a_run_is_trained_and_evaluated_with_it(dummy, tiny, tmp_path, monkeypatch):
    words = train_words(tiny, tmp_path / "runs", "one", "--epochs", "1", "--loader", "dummy")
    assert run(monkeypatch, *words) == 0
    folder = tmp_path / "runs" / "one"
    assert json.loads((folder / "config.json").read_text())["loader_used"] == "dummy"
    evaluation = ["eval", str(folder), "--loader", "dummy", "--device", "cpu", "-j", "1", "--data-dir", str(tiny)]
    assert run(monkeypatch, *evaluation) == 0
    assert json.loads((folder / "scorecard.json").read_text())["settings"]["loader"] == "dummy"


def test_every_loader_has_a_row_in_the_readme():
    import fastreg.pipelines

    readme = Path(fastreg.pipelines.__file__).with_name("README.md").read_text()
    rows = [line.split("`")[1] for line in readme.splitlines() if line.startswith("| `") and "|" in line[3:]]
    assert set(LOADERS) <= set(rows)
