"""The predictions of SCALING.md follow from its formulas."""

import re

import pytest

from fastreg.benchmarks import RESULTS
from fastreg.models import create_model

RATE, BATCH = 5000, 256
ROW = r"\| (\d+) \([^)]*\) \| (\d+) \| (\d+) MB \| ([\d.]+) ms \| (\d+) % \| ([\d,]+) images/s \|"


def test_the_table_of_several_gpus():
    parameters = sum(p.numel() for p in create_model("resnet50", 1000).parameters())
    rows = re.findall(ROW, (RESULTS.parent / "SCALING.md").read_text())
    assert len(rows) == 4
    for gpus, link, sent, reduce, share, rate in rows:
        n = int(gpus)
        step = BATCH / RATE
        bytes_sent = 2 * (n - 1) / n * 4 * parameters
        seconds = bytes_sent / (1e9 * int(link))
        assert int(sent) == round(bytes_sent / 1e6)
        assert float(reduce) == pytest.approx(1e3 * seconds, abs=0.051)
        assert int(share) == pytest.approx(100 * seconds / (2 / 3 * step), abs=0.51)
        expected = n * BATCH / (step + max(0, seconds - 2 / 3 * step))
        assert int(rate.replace(",", "")) == pytest.approx(expected, rel=1e-3)
