"""ShakeDrop and stochastic depth: values and gradients by definition, fields from the method, wrappers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastreg import methods
from fastreg.errors import InputError
from fastreg.models import branch_layers, create_model, set_fields
from fastreg.models.branch import Fields, ShakeDrop, StochasticDepth, survival


def shakedrop_layer(gate, alpha, beta):
    """A single-layer ShakeDrop with these numbers; alpha and beta [B]."""
    fields = Fields(1)
    fields.set({"gate": torch.tensor([gate]), "alpha": alpha[:, None], "beta": beta[:, None]})
    return ShakeDrop(fields, 0, 1).train()


@pytest.mark.parametrize("gate", [0.0, 1.0])
def test_values_and_gradients_follow_the_definition(gate):
    torch.manual_seed(0)
    x = torch.randn(5, 3, 4, 4, requires_grad=True)
    alpha, beta = torch.rand(5) * 2 - 1, torch.rand(5)
    out = shakedrop_layer(gate, alpha, beta)(x)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    for i in range(5):  # b + a - b a is 1 where the gate is open, a where it is closed
        torch.testing.assert_close(out[i], x[i] * (1.0 if gate else alpha[i].item()))
        torch.testing.assert_close(x.grad[i], upstream[i] * (1.0 if gate else beta[i].item()))


def test_half_precision_keeps_its_dtype():
    x = torch.randn(2, 3, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    out = shakedrop_layer(0.0, torch.tensor([0.5, -0.5]), torch.tensor([0.25, 1.0]))(x)
    out.sum().backward()
    assert (out.dtype, x.grad.dtype) == (torch.bfloat16, torch.bfloat16)
    torch.testing.assert_close(x.grad[0], torch.full_like(x.grad[0], 0.25))


def test_survival_decays_linearly_to_one_half():
    assert [survival(i, 4, 0.5) for i in range(4)] == [0.875, 0.75, 0.625, 0.5]
    model = create_model("resnet18", 3, shakedrop=True)
    layers = [m for m in model.modules() if isinstance(m, ShakeDrop)]
    assert [m.layer for m in layers] == list(range(8))
    assert layers[-1].probability == 0.5


def test_evaluation_is_the_expectation_of_training():
    method = methods.create("shakedrop", seed=3)
    count, layers = 50, 4
    x = torch.ones(count, 1)
    fields, total = Fields(layers), torch.zeros(layers)
    shake = [ShakeDrop(fields, i, layers).train() for i in range(layers)]
    steps = 600
    for step in range(steps):
        fields.set(method.fields(torch.arange(count), step, layers=layers))
        total += torch.tensor([layer(x).mean().item() for layer in shake])
    expected = torch.tensor([layer.eval()(x).mean().item() for layer in shake])
    assert expected.tolist() == [0.875, 0.75, 0.625, 0.5]
    torch.testing.assert_close(total / steps, expected, rtol=0, atol=0.06)  # three standard errors of the gate


def test_a_whole_networks_gradients_agree_with_a_plain_version():
    """The plain version never overrides a gradient: beta's part is differentiated, the rest is a constant."""

    class Plain(nn.Module):
        def __init__(self, shake):
            super().__init__()
            self.shake = shake

        def forward(self, x):
            f, i = self.shake.fields, self.shake.layer
            b, a, beta = f.gate[i], f.alpha[:, i].view(-1, 1, 1, 1), f.beta[:, i].view(-1, 1, 1, 1)
            ahead, behind = b + a - b * a, b + beta - b * beta
            return behind * x + ((ahead - behind) * x).detach()

    torch.manual_seed(1)
    model = create_model("resnet18", 4, shakedrop=True, stem="cifar").double()
    plain = copy.deepcopy(model)
    for block in [m for m in plain.modules() if hasattr(m, "drop")]:
        block.drop = Plain(block.drop)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    method = methods.create("shakedrop", dataset="cifar10", seed=8)
    values = method.fields(torch.arange(4), 12, layers=branch_layers(model))
    assert 0 < values["gate"].sum() < 8  # both kinds of layers are met
    for net in (model, plain):
        next(m for m in net.modules() if isinstance(m, Fields)).set({k: v.double() for k, v in values.items()})
        net(x).logsumexp(1).sum().backward()
    for (name, p), q in zip(model.named_parameters(), plain.parameters()):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_stochastic_depth_drops_samples_and_rescales():
    fields = Fields(2)
    fields.set({"chance": torch.tensor([[0.1, 0.95], [0.1, 0.2]])})
    layer = StochasticDepth(fields, 1, 2, last=0.9).train()
    x = torch.ones(2, 3, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(layer(x), torch.tensor([[0.0], [1 / 0.9]]).expand(2, 3))
    torch.testing.assert_close(x.grad, torch.tensor([[0.0], [1 / 0.9]]).expand(2, 3))
    assert torch.equal(layer.eval()(x), x)


@pytest.mark.parametrize("name", ["shakedrop", "stochastic_depth"])
def test_the_method_drives_the_model(name):
    method = methods.create(name)
    torch.manual_seed(2)
    model = create_model("resnet18", 4, stem="cifar", **method.model)
    x, indices = torch.randn(4, 3, 8, 8), torch.tensor([7, 1, 5, 3])

    def run(step):
        set_fields(model, method.fields(indices, step, layers=branch_layers(model)))
        return model(x).detach()

    first, other, again = run(0), run(1), run(0)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    set_fields(model, {})  # methods without fields leave any model alone


def test_without_fields_torchs_generator_drives_the_model():
    model = create_model("resnet18", 4, stem="cifar", shakedrop=True)
    x = torch.randn(2, 3, 8, 8)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        runs.append(model(x).detach())
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_fields_stay_out_of_buffers_so_that_moving_averages_and_ddp_leave_them_alone():
    model = create_model("resnet18", 4, shakedrop=True)
    average = copy.deepcopy(model)
    set_fields(model, methods.create("shakedrop").fields(torch.arange(2), 0, layers=8))
    assert [n for n, _ in model.named_buffers()] == [n for n, _ in average.named_buffers()]


def test_set_fields_writes_in_place_for_captured_graphs():
    model, method = create_model("resnet18", 4, shakedrop=True), methods.create("shakedrop")
    fields = next(m for m in model.modules() if isinstance(m, Fields))
    set_fields(model, method.fields(torch.arange(3), 0, layers=8))
    address = fields.alpha.data_ptr()
    set_fields(model, method.fields(torch.arange(3), 1, layers=8))
    assert fields.alpha.data_ptr() == address
    torch.testing.assert_close(fields.alpha, method.fields(torch.arange(3), 1, layers=8)["alpha"])


def test_a_batch_that_repeats_its_samples_repeats_their_numbers():
    layer = shakedrop_layer(0.0, torch.tensor([0.5, -0.25]), torch.tensor([0.1, 0.2]))
    out = layer(torch.ones(4, 1))
    torch.testing.assert_close(out, torch.tensor([[0.5], [-0.25], [0.5], [-0.25]]))
    with pytest.raises(InputError, match="`fields` has 2 samples, the batch 3: call set_fields for each batch"):
        layer(torch.ones(3, 1))


def test_fields_of_another_model_are_refused():
    fields = methods.create("shakedrop").fields(torch.arange(2), 0)  # 16 layers, ResNet-50's
    with pytest.raises(InputError, match=r"16 layers, the model has 8"):
        set_fields(create_model("resnet18", 4, shakedrop=True), fields)
    with pytest.raises(InputError, match="no branches"):
        set_fields(create_model("resnet18", 4), fields)
    assert branch_layers(create_model("resnet18", 4)) == 0


def test_compiles_without_a_graph_break():
    layer = shakedrop_layer(0.0, torch.tensor([0.5, -0.25]), torch.tensor([0.1, 0.2]))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, requires_grad=True)
    out = compiled(x)
    out.sum().backward()
    torch.testing.assert_close(out, layer(x))
    torch.testing.assert_close(x.grad, torch.tensor([[0.1], [0.2]]).expand(2, 3))
