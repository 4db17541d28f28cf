"""The choice between Triton and the reference."""

from __future__ import annotations

import subprocess
import sys

from tests.support import ROOT, environment


def test_kernels_import_where_triton_is_missing():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from fastreg.kernels import augment, Plan, mixed_cross_entropy, fgsm_step\n"
        "x = augment(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), Plan(), mean=(0.5,) * 3, std=(0.5,) * 3,"
        " dtype=torch.float32)\n"
        "print(x.mean().item(), mixed_cross_entropy(torch.zeros(1, 2), torch.tensor([0])).item())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["-1.0", "0.6931471824645996"]
