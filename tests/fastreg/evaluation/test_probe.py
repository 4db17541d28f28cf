"""Models whose figures would mislead are noted on the card, or refused before any work."""

import pytest
import torch
from torch import nn

from fastreg.errors import InputError
from fastreg.evaluation import evaluate
from fastreg.evaluation.eval_data import EvalData
from tests.fastreg.evaluation.tiny_classifier import tiny_net


class Changed(nn.Module):
    def __init__(self, change, **layers):
        super().__init__()
        self.net, self.change = tiny_net(), change
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.change(self, x)


def dropout(model, x):
    return nn.functional.dropout(model.net(x), 0.5, training=True)


def batch_norm(model, x):
    return model.net((x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True))


def saturated(model, x):
    return 1e4 * model.net(x)


def rounded(model, x):
    return model.net((x * 4).round() / 4)


NOTES = {
    "probabilities": (lambda model, x: model.net(x).softmax(1), "its outputs are probabilities, not logits"),
    "random": (dropout, "its logits change when the same images come again"),
    "batch": (batch_norm, "its logits for an image depend on the others in the batch"),
    "zero": (rounded, "its gradient by the pixels is zero: attacks change nothing"),
    "saturated": (saturated, "its gradient is zero where it is confident"),
}


@pytest.mark.parametrize("kind", NOTES)
def test_misleading_outputs_are_noted_on_the_card(kind, data, tmp_path):
    change, message = NOTES[kind]
    card = evaluate(Changed(change), "clean,fgsm", data, out=tmp_path)
    notes = [note for note in card.notes() if note.startswith("model: ")]
    assert len(notes) == 1
    assert message in notes[0]
    assert message in (tmp_path / "scorecard.json").read_text()


@pytest.mark.parametrize("change", [lambda model, x: model.net(x), lambda model, x: model.net(x).log_softmax(1)])
def test_an_ordinary_model_has_no_such_notes(change, data):
    card = evaluate(Changed(change), "clean,fgsm,pgd", data)
    assert not any(note.startswith("model: ") for note in card.notes())


def test_gradients_matter_to_attacks_alone(data):
    card = evaluate(Changed(rounded), "clean,occlusion", data)
    assert not any(note.startswith("model: ") for note in card.notes())


def test_a_random_model_keeps_the_callers_random_state(data):
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    evaluate(tiny_net_without_seed, "clean", data)
    assert torch.equal(torch.rand(1), wanted)


tiny_net_without_seed = tiny_net()


def without_gradient(model, x):
    with torch.no_grad():
        return model.net(x)


def scripted():
    net = tiny_net()
    return torch.jit.freeze(torch.jit.script(net))


def exported():
    batch = torch.export.Dim("batch", min=2, max=64)
    return torch.export.export(tiny_net(), (torch.randn(8, 3, 64, 64),), dynamic_shapes=({0: batch},)).module()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Changed(without_gradient), "RuntimeError: element 0 of tensors does not require grad"),
        (lambda: Changed(lambda model, x: model.net(x).detach()), "RuntimeError"),
        (lambda: Changed(lambda model, x: model.net(torch.ones_like(x)) + 0), "RuntimeError"),
    ],
    ids=["no_grad", "detached", "of other pixels"],
)
def test_attacks_on_models_without_gradients_are_refused_before_any_work(make, why, data, monkeypatch, tmp_path):
    monkeypatch.setattr(EvalData, "decode", lambda *a, **k: pytest.fail("worked for nothing"))
    with pytest.raises(InputError) as caught:
        evaluate(make(), "clean,pgd", data, out=tmp_path)
    assert "attacks need the gradient of the logits by the pixels, and the model gives none" in str(caught.value)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "scorecard.json").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [scripted, exported])
def test_torchscript_and_exported_programs_are_evaluated_as_modules(make, data):
    wanted = evaluate(tiny_net(), "clean,occlusion,fgsm", data, batch_size=8)
    found = evaluate(make(), "clean,occlusion,fgsm", data, batch_size=8)
    assert found.summary()["clean_error"] == wanted.summary()["clean_error"]
    assert found.summary()["fgsm_error"] == pytest.approx(wanted.summary()["fgsm_error"], abs=100 / 30)


def test_parameters_learn_afterwards_as_they_did_before(data):
    net = tiny_net()
    net[0].weight.requires_grad_(False)
    with pytest.raises(InputError):
        evaluate(Changed(without_gradient), "fgsm", data)
    evaluate(net, "clean,fgsm", data)
    assert [p.requires_grad for p in net.parameters()] == [False] + [True] * 7


@pytest.mark.parametrize("n", [2, 4])
def test_programs_exported_for_a_number_of_images_are_padded_to_it(n, data):
    program = torch.export.export(tiny_net(), (torch.zeros(n, 3, 64, 64),)).module()
    wanted = evaluate(tiny_net(), "clean,fgsm,pgd", data)  # of 30 images
    found = evaluate(program, "clean,fgsm,pgd", data, batch_size=n)
    assert found.summary() == pytest.approx(wanted.summary(), abs=1e-4)
    # a restart attacks the rest of a batch, which is padded too
    again = {"attack_restarts": 3, "epsilon": 1 / 255, "batch_size": n}
    few = (data[0][:6], data[1][:6])
    found = evaluate(program, "pgd", few, **again).summary()
    assert found == pytest.approx(evaluate(tiny_net(), "pgd", few, **again).summary(), abs=1e-4)
    with pytest.raises(InputError, match=r"`batch_size`\.$") as caught:
        evaluate(program, "clean", data, batch_size=7)
    assert "Guard failed" in str(caught.value)


def test_lazy_and_gray_models_are_refused_by_name(data):
    with pytest.raises(InputError, match="lazy parameters without values: call it once"):
        evaluate(nn.Sequential(nn.Flatten(), nn.LazyLinear(6)), "clean", data)
    gray = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))
    with pytest.raises(InputError, match=r"expected input\[2, 3, 64, 64\] to have 1 channels.*it gets \[batch, 3, 64"):
        evaluate(gray, "clean", data)
