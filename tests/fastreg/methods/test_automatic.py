"""Methods of automatic augmentation: keys of the draws, joined methods, modules, and the training step of the views."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastreg import methods
from fastreg.errors import InputError
from fastreg.kernels import BatchAugment, Plan, Targets, augment, mixed_cross_entropy
from fastreg.kernels.philox import sample_keys, view_keys
from fastreg.methods.jsd import jensen_shannon
from tests.support import peer

METHODS = {
    "trivial_augment": {},
    "rand_augment": {},
    "rand_augment timm": {"law": "timm", "mstd": 0.5, "inc": True},
    "rand_augment weights": {"law": "timm", "weights": True, "num_ops": 3},
    "rand_augment views": {"law": "timm", "jsd": True},
    "auto_augment_policy": {},
    "augmix": {},
    "augmix timm": {"law": "timm", "jsd": False},
}
GIVEN = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3), "dtype": torch.float32}


def create(case: str, more: str = "", **parameters) -> methods.Method:
    return methods.create(case.split()[0] + more, size=24, seed=4, **METHODS[case], **parameters)


def batch(count: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (count, 24, 24, 3), dtype=np.uint8))
    return images, torch.from_numpy(rng.integers(0, 5, count)), torch.from_numpy(rng.permutation(1000)[:count])


def automatic(plan: Plan) -> dict[str, torch.Tensor]:
    return {name: value for name, value in plan._asdict().items() if value is not None and name != "flip"}


@pytest.mark.parametrize("case", METHODS)
def test_a_sample_draws_the_same_in_any_batch_and_anew_in_each_epoch_and_occurrence(case):
    method = create(case)
    indices = torch.arange(200, 240)
    whole = automatic(method.draw(indices, indices, 5, epoch=2)[0])
    for rows in (slice(0, 40, 7), slice(33, 34), slice(None, None, 1)):
        part = automatic(method.draw(indices[rows], indices[rows], 9, epoch=2)[0])
        assert all(torch.equal(part[name], whole[name][rows]) for name in whole)
    assert all(value.is_contiguous() for value in whole.values())
    first = torch.from_numpy(sample_keys(indices.numpy(), np.zeros(40)))
    again = torch.from_numpy(sample_keys(indices.numpy(), np.ones(40)))
    assert all(
        torch.equal(value, whole[name]) for name, value in automatic(method.draw(indices, first, 0, epoch=2)[0]).items()
    )
    for other in (method.draw(indices, again, 5, epoch=2)[0], method.draw(indices, indices, 5, epoch=3)[0]):
        assert not torch.equal(other.operations, whole["operations"])


@pytest.mark.parametrize("case", METHODS)
def test_a_method_survives_pickling_and_the_module_applies_its_plan(case):
    method = pickle.loads(pickle.dumps(create(case)))
    images, labels, indices = batch()
    module = BatchAugment(method._replace(step=None), GIVEN["mean"], GIVEN["std"], seed=4)
    module = pickle.loads(pickle.dumps(module))
    out, targets = torch.compile(module, backend="eager")(images, labels, indices)
    plan, _ = create(case).draw(labels, indices, 0, size=(24, 24))
    timm = METHODS[case].get("law") == "timm"  # whose fill is the mean color
    fill = (102, 128, 153) if timm else (0, 0, 0)
    assert torch.equal(out, augment(images, plan, **GIVEN, fill=fill))
    assert torch.equal(targets.a, labels)
    if not timm:
        assert not torch.equal(out, augment(images, Plan(flip=plan.flip), **GIVEN))


def test_views_differ_and_are_draws_of_their_own_keys():
    images, labels, indices = batch()
    three, _ = create("augmix").draw(labels, indices, 0)
    for view in (1, 2):
        one, _ = create("augmix", jsd=False).draw(labels, view_keys(indices, view), 0)
        assert torch.equal(one.operations, three.operations[:, view - 1])
        assert torch.equal(one.chain_weights, three.chain_weights[:, view - 1])
    out = augment(images, three, **GIVEN)
    assert torch.equal(out[:9], augment(images, Plan(flip=three.flip), **GIVEN))  # the first view is without AugMix
    assert not torch.equal(out[9:18], out[18:])


@pytest.mark.parametrize("name", ["trivial_augment+mixup", "rand_augment+cutmix", "auto_augment_policy+cutout"])
def test_joined_methods_operate_before_they_mix(name):
    images, labels, indices = batch()
    own, other = name.split("+")
    plan, targets = methods.create(name, size=24, scope="sample").draw(labels, indices, 3)
    operated, _ = methods.create(own, size=24).draw(labels, indices, 3)
    mixing, same = methods.create(other, size=24, scope="sample").draw(labels, indices, 3)
    bytes_ = augment(images, operated, mean=(0.0,) * 3, std=(1 / 255,) * 3, dtype=torch.float32)
    after = bytes_.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    expected = augment(after, mixing._replace(flip=None), **GIVEN)
    torch.testing.assert_close(augment(images, plan, **GIVEN), expected)
    assert all(torch.equal(*pair) for pair in zip(targets, same))


def test_an_interpolation_may_be_given_for_every_operation():
    _, labels, indices = batch()
    assert create("rand_augment timm", interpolation="nearest").draw(labels, indices, 0)[0].interpolation is None
    plan, _ = create("rand_augment timm", interpolation="bicubic").draw(labels, indices, 0)
    assert (plan.interpolation == 2).all()
    assert (create("trivial_augment", interpolation="bilinear").draw(labels, indices, 0)[0].interpolation == 1).all()


def test_the_last_epochs_without_mixing_keep_their_operations():
    """As ``mixup_off_epoch`` in timm; the step of AugMix still gets its views."""
    _, labels, indices = batch()
    method = create("augmix", "+cutmix")
    plan, _ = method.plain(labels, indices, 0)
    assert plan.box is None
    assert torch.equal(plan.operations, method.draw(labels, indices, 0)[0].operations)


def test_an_empty_batch_has_an_empty_plan():
    plan, _ = methods.create("cutmix+random_erasing", size=24).draw(torch.empty(0).long(), torch.empty(0).long(), 1)
    assert plan.box.shape == plan.erase.shape == (0, 4)


def published(logits: torch.Tensor, labels: torch.Tensor, smoothing: float, weight: float) -> torch.Tensor:
    """The loss of AugMix in float64, by its definition."""
    p, q, r = logits.double().softmax(1).chunk(3)
    mixture = ((p + q + r) / 3).clamp(1e-7, 1)
    divergence = sum((x * (x.log() - mixture.log())).sum(1).mean() for x in (p, q, r)) / 3
    first = F.cross_entropy(logits[: len(labels)].double(), labels, label_smoothing=smoothing)
    return first + weight * divergence


class Linear(nn.Module):
    """Logits from the mean color, and the images that it saw."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 40)

    def forward(self, images):
        self.seen = images
        return self.layer(images.mean((2, 3)))


@pytest.mark.parametrize(("case", "weight"), [("augmix", 12.0), ("augmix", 3.0), ("rand_augment views", 12.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_step_is_the_loss_of_augmix(case, weight, smoothing):
    torch.manual_seed(0)
    images, labels, indices = batch()
    method = create(case, jsd_weight=weight)
    plan, targets = method.draw(labels, indices, 0)
    x = augment(images, plan, **GIVEN)
    model = Linear()

    def loss(logits, targets):
        return mixed_cross_entropy(logits, targets, label_smoothing=smoothing)

    found = method.step(model, x, targets, loss, indices=indices, step=0, epoch=0)
    assert torch.equal(model.seen, x)
    found.backward()
    gradient = model.layer.weight.grad.clone()
    model.zero_grad()
    expected = published(model(x), labels, smoothing, weight)
    expected.backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, model.layer.weight.grad, rtol=1e-4, atol=1e-6)
    if weight == 12:
        theirs = peer("timm.loss").JsdCrossEntropy(num_splits=3, alpha=12, smoothing=smoothing)
        torch.testing.assert_close(found, theirs(model(x), labels), rtol=1e-5, atol=1e-6)


def test_mixed_labels_belong_to_the_first_view_and_every_view_is_mixed():
    torch.manual_seed(0)
    images, labels, indices = batch()
    method = create("augmix", "+mixup", augmix_jsd_weight=2.0)
    plan, targets = method.draw(labels, indices, 0)
    model, x = Linear(), augment(images, plan, **GIVEN)
    apart = augment(images, plan._replace(partner=None, lam=None), **GIVEN).view(3, 9, 3, 24, 24)
    lam = plan.lam[None, :, None, None, None]
    torch.testing.assert_close(x.view_as(apart), lam * apart + (1 - lam) * apart[:, plan.partner])
    found = method.step(model, x, targets, mixed_cross_entropy)
    logits = model(x)
    pairs = targets.lam * F.cross_entropy(logits[:9], targets.a, reduction="none")
    pairs = pairs + (1 - targets.lam) * F.cross_entropy(logits[:9], targets.b, reduction="none")
    divergence = published(logits, labels, 0.0, 1.0) - published(logits, labels, 0.0, 0.0)
    torch.testing.assert_close(found.double(), pairs.mean().double() + 2 * divergence, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("views", "scale"), [(3, 1.0), (2, 5.0), (4, 60.0)])
def test_the_divergence_and_its_gradient_in_float64(dtype, views, scale):
    """Also where the bound on the mixture holds, which it does for logits far apart."""
    logits = (scale * torch.randn(views * 5, 300, generator=torch.Generator().manual_seed(views))).to(dtype)
    ours, exact = logits.clone().requires_grad_(), logits.double().requires_grad_()
    p = exact.softmax(1).view(views, 5, 300)
    mixture = p.mean(0).clamp(1e-7, 1).log()
    expected = sum(F.kl_div(mixture, one, reduction="batchmean") for one in p) / views
    found = jensen_shannon(ours, views)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=1e-6)
    (7 * found).backward()
    (7 * expected).backward()
    assert ours.grad.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}[dtype]
    assert (ours.grad.double() - exact.grad).abs().max() < tolerance * exact.grad.abs().max() + 1e-7


def test_equal_views_have_no_divergence_and_no_gradient():
    logits = torch.randn(4, 10).repeat(3, 1).requires_grad_()
    jensen_shannon(logits, 3).backward()
    assert abs(jensen_shannon(logits, 3).item()) < 1e-6
    assert logits.grad.abs().max() < 1e-7
    far = torch.tensor([[math.inf, 0.0], [0.0, 1.0]]).nan_to_num(posinf=3e38)
    assert jensen_shannon(far, 2).isfinite()
    with pytest.raises(InputError, match="`logits` has 5 rows for 2 views"):
        jensen_shannon(torch.zeros(5, 3), 2)


def test_the_step_names_images_that_have_no_views():
    _, labels, _ = batch()
    targets = Targets(labels, labels, torch.ones(9))
    with pytest.raises(InputError, match="`images` has 9 images for 9 targets"):
        create("augmix").step(Linear(), torch.zeros(9, 3, 8, 8), targets, mixed_cross_entropy)
    with pytest.raises(ValueError, match="'augmix' changes the training step"):
        BatchAugment(create("augmix"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "rand_augment", "law": "keras"}, "unknown `law`"),
        ({"name": "rand_augment", "mstd": 0.5}, "`mstd` belongs to `law` timm"),
        ({"name": "rand_augment", "law": "timm", "num_magnitude_bins": 31}, "`num_magnitude_bins` belongs to"),
        ({"name": "rand_augment", "magnitude": 31}, "31: give a whole number of at least 0 and at most 30"),
        ({"name": "rand_augment", "magnitude": 4.5}, "`magnitude` is 4.5: give a whole number"),
        ({"name": "rand_augment", "num_ops": 0}, "`num_ops` is 0"),
        ({"name": "rand_augment", "law": "timm", "prob": 2}, "`prob` is 2"),
        ({"name": "rand_augment", "interpolation": "random"}, "unknown `interpolation`"),
        ({"name": "trivial_augment", "interpolation": "lanczos"}, "unknown `interpolation` 'lanczos'"),
        ({"name": "trivial_augment", "num_magnitude_bins": 1}, "`num_magnitude_bins` is 1"),
        ({"name": "auto_augment_policy", "policy": "svhn"}, "unknown `policy` 'svhn'"),
        ({"name": "augmix", "severity": 11}, "`severity` is 11: give a whole number of at least 1 and at most 10"),
        ({"name": "augmix", "alpha": 0}, "`alpha` is 0"),
        ({"name": "augmix", "width": True}, "`width` is True"),
        ({"name": "augmix", "mstd": 1.0}, "`mstd` belongs to `law` timm"),
        ({"name": "augmix", "law": "timm", "all_ops": True}, "`all_ops` belongs to `law` torchvision"),
        ({"name": "augmix", "law": "google"}, "unknown `law`"),
        ({"name": "augmix", "jsd_weight": -1}, "`jsd_weight` is -1"),
        ({"name": "trivial_augment+augmix"}, "both draw the plan's"),
        ({"name": "augmix+adversarial"}, "both change the training step"),
    ],
)  # fmt: skip
def test_bad_parameters_are_one_clear_error(arguments, message):
    with pytest.raises(InputError, match=message):
        methods.create_method(**arguments)
