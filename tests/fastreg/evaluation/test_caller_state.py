"""Models and data of ordinary callers: other stored precisions, any memory order, inference mode."""

import numpy as np
import pytest
import torch
from torch import nn

from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.cuda_graph import CudaGraphForward
from tests.fastreg.evaluation.tiny_classifier import MEAN, STD, tiny_images, tiny_net, to_pixels


class Seen(nn.Module):
    """Remembers the types it was given."""

    def __init__(self, net):
        super().__init__()
        self.net, self.seen = net, []

    def forward(self, x):
        self.seen.append(x.dtype)
        return self.net(x)


HALF = [(torch.float16, "fp16"), (torch.bfloat16, "bf16")]


def plain_error(net, data, dtype):
    images, labels = data
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        guess = net(((to_pixels(images) - mean) / std).to(dtype)).argmax(1)
    return 100 * (guess != labels).double().mean().item()


@pytest.mark.parametrize(("dtype", "precision"), [(torch.float64, "fp64"), *HALF])
def test_a_model_stored_in_the_precision_that_is_asked_for_runs_in_it(data, dtype, precision):
    net = Seen(tiny_net().to(dtype))
    asked = {} if precision == "fp64" else {"precision": precision}
    card = evaluate(net, "clean,fgsm,occlusion", data, batch_size=16, **asked)
    assert card.settings["precision"] == precision
    assert set(net.seen) == {dtype}
    wrong = plain_error(tiny_net().to(dtype), data, dtype)
    assert card.summary()["clean_error"] == pytest.approx(wrong, abs=100 / len(data[1]))


@pytest.mark.parametrize("asked", [{}, {"precision": "auto"}, {"precision": "fp32"}])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_stored_in_half_precision_runs_as_a_float32_copy(data, dtype, asked):
    net = Seen(tiny_net().to(dtype))
    before = [(t.data_ptr(), t.dtype) for t in (*net.parameters(), *net.buffers())]
    card = evaluate(net, "clean,fgsm,occlusion", data, batch_size=16, **asked)
    assert (card.settings["precision"], card.settings["tf32"]) == ("fp32", False)
    assert set(net.seen) == {torch.float32}
    assert [(t.data_ptr(), t.dtype) for t in (*net.parameters(), *net.buffers())] == before
    copy = tiny_net().to(dtype).float()
    assert card.summary()["clean_error"] == plain_error(copy, data, torch.float32)
    assert card.summary() == evaluate(copy, "clean,fgsm,occlusion", data, batch_size=16).summary()


def test_a_float64_model_never_loses_precision(data):
    net = Seen(tiny_net().double())
    assert evaluate(net, "clean", data, precision="fp32").settings["precision"] == "fp64"
    with pytest.raises(InputError, match=r"stored in float64 and cannot run in bf16: evaluate model\.float"):
        evaluate(net, "clean", data, precision="bf16")


def test_a_model_stored_in_two_precisions_needs_one_to_run_in(data):
    net = tiny_net()
    net[0].bfloat16()
    for asked in ("fp32", "auto"):
        with pytest.raises(InputError, match="stored in bfloat16 and float32 and cannot run in fp32"):
            evaluate(net, "clean", data, precision=asked)
    assert evaluate(net, "clean", data, precision="bf16").settings["precision"] == "bf16"


def test_inference_mode_around_it_changes_nothing(data):
    net = tiny_net()
    wanted = evaluate(net, "clean,fgsm,pgd", data).summary()
    with torch.inference_mode():
        found = evaluate(net, "clean,fgsm,pgd", tiny_images()).summary()  # the images, too, are made in there
        assert torch.is_inference_mode_enabled()
    with torch.no_grad():
        assert evaluate(tiny_net(), "clean,fgsm,pgd", data).summary() == wanted
    assert found == wanted


def test_arrays_of_any_memory_order_and_kind(data):
    images, labels = data
    wanted = evaluate(tiny_net(), "clean,fgsm", data).summary()
    turned = images.flip(1)
    for given in (
        [images, labels],
        (images.numpy(), labels.tolist()),
        (np.asfortranarray(images.numpy()), labels.int()),
        (turned.numpy()[:, ::-1], labels.numpy().astype(np.uint8)),
        (images.permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3), labels),
    ):
        assert evaluate(tiny_net(), "clean,fgsm", given).summary() == wanted
    small = (images[:, ::2, ::2], labels)
    corrupted = {"corruptions": "fog", "severities": [1]}
    evaluate(tiny_net(), "cifar-c", small, **corrupted)


@pytest.mark.parametrize("first", ["images", "pixels"])
def test_the_models_input_does_not_depend_on_what_came_first(first, fake_capture):
    """A captured graph holds the type of its first batch; its first layer here tells float32 from bfloat16."""

    class Coarse(nn.Module):
        def forward(self, x):
            return (x * 1e4).float().mean((2, 3))  # rounding to bfloat16 is seen before any autocast layer

    images, _ = tiny_images(8)
    given = {"mean": MEAN, "std": STD, "device": torch.device("cpu"), "precision": "bf16"}
    calls = [lambda c: c.images(images), lambda c: c.pixels(to_pixels(images) * 0.999)]
    alone = [call(Classifier(Coarse(), **given)) for call in calls]
    captured = Classifier(Coarse(), **given)
    captured.replayed, captured.pad_to = CudaGraphForward(captured.module.logits, 8, fake_capture([])), 8
    order = (0, 1) if first == "images" else (1, 0)
    found = {i: calls[i](captured) for i in order}
    assert not captured.replayed.refused
    assert captured.replayed.input.dtype == torch.bfloat16
    assert all(torch.equal(found[i], alone[i]) for i in order)
    assert not torch.equal(
        alone[1], Classifier(Coarse(), **{**given, "precision": "fp32"}).pixels(to_pixels(images) * 0.999)
    )
