"""A corruption added by the steps of CONTRIBUTING.md reaches every user of the table."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fastreg.kernels import corruptions, philox
from fastreg.kernels.corruptions import corrupt, draw_fields
from fastreg.kernels.corruptions.constants import CONSTANTS
from fastreg.kernels.corruptions.table import TABLE, Corruption, register
from tests.kernels.corruptions import dummy
from tests.support import ROOT, environment

# In a process of its own: modules may read the table as they are imported.
ADDED = """
import sys
from tests.kernels.corruptions import dummy
dummy.add()
"""
SHOWN = """
from fastreg.cli import main
sys.argv[1:] = ["show", "corruptions", *sys.argv[1:]]
main()
"""
EVALUATED = """
import torch
from fastreg.evaluation import evaluate
from fastreg.kernels import corrupt

images = torch.randint(0, 256, (12, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
labels = torch.arange(12) % 3
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3)).eval()
torch.nn.init.normal_(model[1].weight, generator=torch.Generator().manual_seed(1))
card = evaluate(model, "cifar-c", (images, labels), corruptions="dummy", severities=[2, 5], mean=None, std=None)
print(sorted(card.results("cifar-c")))
for severity in (2, 5):
    pixels = corrupt(images, "dummy", severity, indices=torch.arange(12)).permute(0, 3, 1, 2) / 255
    wrong = (model(pixels).argmax(1) != labels).double().mean().item() * 100
    print(abs(card.results("cifar-c")[f"dummy/{severity}"]["error"] - wrong) < 1e-6)
"""


@pytest.fixture
def added(monkeypatch):
    """The dummy, for one test."""
    for table in (TABLE, philox.OPERATIONS, *CONSTANTS.values()):
        monkeypatch.setitem(table, "dummy", None)  # so that it is gone afterwards
    dummy.add()


def run(script: str, *words) -> str:
    command = [sys.executable, "-c", ADDED + script, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_corrupt_and_draw_fields(added):
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    indices = torch.tensor([4, 900, 31])
    fields = draw_fields("dummy", 3, seed=5, indices=indices, size=32)
    assert list(fields) == ["share"]
    share = fields["share"].double().view(-1, 1, 1, 1)
    expected = ((images.double() / 255 + 0.3 * share).clamp(0, 1) * 255).to(torch.uint8)
    assert torch.equal(corrupt(images, "dummy", 3, fields=fields), expected)
    assert torch.equal(corrupt(images, "dummy", 3, seed=5, indices=indices), expected)
    assert not torch.equal(corrupt(images, "dummy", 3, seed=6, indices=indices), expected)
    with pytest.raises(ValueError, match=r"`fields\['share'\]` has shape \[2\]: dummy takes \[3\]"):
        corrupt(images, "dummy", 3, fields={"share": torch.zeros(2)})


def test_the_names_come_from_the_table(added):
    assert corruptions.EXTRA_CORRUPTIONS[-1] == "dummy"
    assert "dummy" not in corruptions.CORRUPTIONS
    with pytest.raises(ValueError, match="did you mean 'dummy'"):
        corrupt(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), "dumy", 1)


def test_a_row_without_severities_is_refused(monkeypatch):
    monkeypatch.setitem(CONSTANTS["tiny64"], "dummy", dummy.SEVERITIES)
    with pytest.raises(ValueError, match="'dummy': add its five severities to imagenet224, imagenet299, cifar32"):
        register(Corruption("dummy", dummy.dummy))
    assert "dummy" not in TABLE


def test_the_command_line_draws_it(tmp_path):
    source, out = tmp_path / "gray.png", tmp_path / "sheet.png"
    Image.fromarray(np.full((80, 80, 3), 60, np.uint8)).save(source)
    run(SHOWN, source, "--corruption", "dummy", "--size", 64, "--out", out)
    sheet = np.asarray(Image.open(out).convert("L")).astype(int)
    row = sheet[sheet.shape[0] // 2]
    assert (row == 60).sum() > 50  # the original
    assert (row > 200).any()  # paper
    assert len({value for value in row.tolist() if 60 < value < 188 and (row == value).sum() > 50}) == 5


@pytest.mark.slow
def test_evaluation_scores_it():
    assert run(EVALUATED).splitlines() == ["['dummy/2', 'dummy/5']", "True", "True"]
