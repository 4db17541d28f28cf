"""Suites run for real, small; and what they compare is the same work."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastreg import methods
from fastreg.benchmarks import images, record, run, runner
from fastreg.benchmarks.options import Job
from fastreg.benchmarks.peers.kernels import compiled, plain_augment, plain_fgsm, plain_loss
from fastreg.benchmarks.peers.training import IMAGENET_MEAN, IMAGENET_STD
from fastreg.benchmarks.peers.training import corruptions as corruption_peers
from fastreg.benchmarks.record import OURS, Absent
from fastreg.benchmarks.suites import throughput
from fastreg.errors import InputError, RunError
from fastreg.kernels import augment, corrupt, fgsm_step, mixed_cross_entropy
from fastreg.kernels.corruptions.constants import CONSTANTS
from fastreg.kernels.types import Plan
from tests.support import fastreg, write_tiny_imagenet


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_tiny_imagenet(tmp_path_factory.mktemp("tiny"), train=16)


@pytest.mark.parametrize("reg", ["none", "mixup", "cutmix", "cutout"])
@pytest.mark.parametrize("scope", ["batch", "sample"])
def test_the_plain_peer_does_the_same_work(reg, scope):
    pixels = images.image_batch(6, 32, torch.device("cpu"))
    method = methods.create(reg, size=32, scope=scope)
    plan, targets = method.draw(torch.arange(6), torch.arange(6), 3)
    mine = augment(pixels, plan, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=torch.float32)
    torch.testing.assert_close(plain_augment(pixels, plan, torch.float32), mine, rtol=0, atol=3e-6)
    logits = torch.randn(6, 10)
    theirs, ours = plain_loss(logits, targets, 0.1), mixed_cross_entropy(logits, targets, 0.1, "none")
    torch.testing.assert_close(theirs, ours, rtol=0, atol=5e-6)


def test_the_plain_peer_occludes_and_attacks_alike():
    pixels = images.image_batch(2, 32, torch.device("cpu"))
    box = torch.tensor([[8, 8, 24, 24]], dtype=torch.int32).expand(2, 4).contiguous()
    plan = Plan(box=box, box_fill=torch.ones(2, dtype=torch.int8))
    mine = augment(pixels, plan, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=torch.float32)
    torch.testing.assert_close(plain_augment(pixels, plan, torch.float32), mine, rtol=0, atol=3e-6)
    x, g = torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(plain_fgsm(x, g, 8 / 255), fgsm_step(x, g, 8 / 255), rtol=0, atol=1e-7)


def test_the_peers_of_the_corruptions_give_the_same_pixels():
    """To a level: they work in float32. Of the noise, which each draws by itself, the standard deviation."""
    (photograph,), _ = images._from_golden()
    pixels = torch.from_numpy(np.stack((photograph, photograph[:, ::-1])))
    found, why = corruption_peers.peers()
    if why:
        pytest.skip(why)
    for (name, peer), function in found.items():
        for severity in (1, 5):
            theirs = function(pixels, CONSTANTS["imagenet224"][name][severity - 1]).float()
            ours = corrupt(pixels, name, severity, indices=torch.arange(2)).float()
            if name == "gaussian_noise":
                spread = [(out - pixels).std().item() for out in (theirs, ours)]
                assert spread[0] == pytest.approx(spread[1], rel=0.01)
            else:
                assert (theirs - ours).abs().mean() < 0.6, (name, peer, severity)
                assert (theirs - pixels).abs().mean() > 2


def test_the_compiled_peer_never_falls_back_to_eager_code(monkeypatch):
    """Twelve cases of different shapes, more than torch.compile recompiles one function for."""
    graphs: list[int] = []

    def count(module, example):
        graphs.append(1)
        return module.forward

    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: whole(function, backend=count, **options))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for n in range(1, 13):
            double = compiled(lambda x: 2 * x)
            assert torch.equal(double(torch.ones(n)), torch.full((n,), 2.0))
    assert len(graphs) == 12


def test_photographs_are_real_and_batches_repeat():
    stock, where = images.photographs()
    assert "1/f" not in where
    assert all(image.dtype == "uint8" and image.shape[2] == 3 for image in stock)
    a, b = (images.image_batch(3, 48, torch.device("cpu"), seed=4) for _ in range(2))
    assert torch.equal(a, b)
    a.zero_()
    assert images.image_batch(3, 48, torch.device("cpu"), seed=4).any()  # a caller's writing changes no other's pixels


def test_throughput_on_a_data_set(data, tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, "LOADERS", ("folder", "nonsense"))
    said: list[str] = []
    options = {"device": "cpu", "batch_size": 4, "size": 32, "data_dir": str(data), "quick": True, "out": tmp_path}
    found = run("throughput", say=said.append, **options)
    record.check(found)
    rows = {(r.name, r.variant): r for _, r in record.rows_of(found)}
    fed = rows["step mixup, fed by folder", OURS]
    assert 0 <= fed.more["data_wait"] <= 1
    assert rows["step none", "bare loop"].images == 4
    absent = {one["name"]: one["reason"] for one in found["suites"]["throughput"]["absent"]}
    assert "unknown loader 'nonsense'" in absent["step mixup, fed by nonsense"]
    (path,) = tmp_path.glob("*.json")
    assert record.read(path)["suites"].keys() == {"throughput"}
    assert any("step mixup, fed by folder" in text for text in said)


def test_without_a_data_set_it_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTREG_DATA", raising=False)
    monkeypatch.setattr(throughput, "_ready_steps", lambda *_: iter(()))
    found = list(throughput.rows(Job(torch.device("cpu")), {}))
    assert len(found) == len(throughput.LOADERS)
    assert all(isinstance(one, Absent) and "fastreg data sample imagenet" in one.reason for one in found)


def test_a_suite_that_fails_late_has_written_what_it_measured(tmp_path, monkeypatch):
    from tests.benchmarks.report.made_up_record import row

    def rows(job, settings):
        yield row("loss x", 5.0)
        raise RuntimeError("the machine went away")

    monkeypatch.setattr("fastreg.benchmarks.suites.loss.rows", rows)
    with pytest.raises(RuntimeError):
        runner.run("loss", out=tmp_path, device="cpu")
    (path,) = tmp_path.glob("*.json")
    assert [r["name"] for r in record.read(path)["suites"]["loss"]["rows"]] == ["loss x"]


@pytest.mark.parametrize(
    ("what", "options", "says"),
    [
        ("thruput", {}, "did you mean 'throughput'"),
        ("loss", {"batch_size": 0}, "--batch-size must be at least 1"),
        ("loss", {"size": -3}, "--size must be at least 1"),
        ("loss", {"device": "gpu7"}, "--device gpu7: give cpu, cuda or cuda:N"),
        ("throughput", {"data_dir": "/nowhere"}, "no imagenet data at /nowhere"),
    ],
)
def test_bad_input_is_one_sentence(what, options, says):
    with pytest.raises(InputError, match=says):
        run(what, **{"device": "cpu", **options})


def test_the_command_says_it_without_a_traceback():
    done = fastreg("bench", "throughput", "--data-dir", "/nowhere", "--device", "cpu")
    assert done.returncode == 2
    assert "no imagenet data at /nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unwritable_folder_is_known_before_the_work():
    with pytest.raises(RunError, match="cannot write"):
        run("loss", out="/dev/null/results", device="cpu")


def test_an_unknown_device_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="no CUDA device"):
        run("loss", device="cuda")
