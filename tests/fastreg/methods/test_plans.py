"""Methods that are a plan: each one's mathematics on real pixels against a plain version, its draws' laws, its keys."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastreg import methods
from fastreg.errors import InputError
from fastreg.kernels import augment, mixed_cross_entropy
from fastreg.methods.base import GROUP, ship

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PLAIN = ("none", "mixup", "cutmix", "mixup+cutmix", "cutout", "gaussian_noise", "no_crop_flip", "random_erasing")
PLAIN += ("alternating_flip",)
SCOPES = ("batch", "sample")


def batch(count=12, size=(16, 20), seed=0):
    """Random images uint8 [B, h, w, 3], labels and scattered indices."""
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (count, *size, 3), dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, 10, count))
    return images, labels, torch.from_numpy(rng.permutation(1000)[:count])


def normalized(images):
    x = images.permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def flipped(images, plan):
    return torch.stack([image.flip(1) if f else image for image, f in zip(images, plan.flip)])


def applied(images, plan):
    return augment(images, plan, mean=MEAN, std=STD, dtype=torch.float32)


def soft_loss(logits, labels, partner, lam, smoothing):
    """Cross-entropy with dense, smoothed, mixed labels."""
    hot = F.one_hot(labels, 10).double() * (1 - smoothing) + smoothing / 10
    target = lam[:, None].double() * hot + (1 - lam[:, None].double()) * hot[partner]
    return -(target * logits.double().log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("name", ["mixup", "cutmix", "mixup+cutmix"])
def test_mixing_pixels_and_labels_agree_with_a_plain_version(name, scope, step):
    images, labels, indices = batch()
    method = methods.create(name, scope=scope, size=(16, 20), seed=5)
    plan, targets = method.draw(labels, indices, step)
    x = normalized(flipped(images, plan))
    expected, share = [], []
    for i in range(len(x)):
        own, other = x[i], x[plan.partner[i]]
        if plan.lam is not None and plan.lam[i] < 1:
            expected.append(plan.lam[i] * own + (1 - plan.lam[i]) * other)
            share.append(plan.lam[i].item())
        else:
            y0, x0, y1, x1 = plan.box[i].tolist() if plan.box is not None else (0, 0, 0, 0)
            image = own.clone()
            image[:, y0:y1, x0:x1] = other[:, y0:y1, x0:x1]
            expected.append(image)
            share.append(1 - (y1 - y0) * (x1 - x0) / (16 * 20))
    torch.testing.assert_close(applied(images, plan), torch.stack(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(targets.lam, torch.tensor(share))
    assert torch.equal(targets.a, labels)
    assert torch.equal(targets.b, labels[plan.partner])
    logits = torch.randn(len(labels), 10, generator=torch.Generator().manual_seed(step))
    loss = mixed_cross_entropy(logits, targets, label_smoothing=0.1)
    torch.testing.assert_close(loss.double(), soft_loss(logits, labels, plan.partner, targets.lam, 0.1))
    if scope == "batch":
        assert (targets.lam == targets.lam[0]).all()
    elif name != "mixup+cutmix":
        assert len(set(targets.lam.tolist())) > len(labels) // 2


@pytest.mark.parametrize("scope", SCOPES)
def test_mixup_and_cutmix_keep_their_own_alpha_and_switch_with_their_probability(scope):
    _, labels, indices = batch(50)
    common = {"scope": scope, "size": (16, 20), "seed": 3}
    both = {"mixup_alpha": 0.3, "cutmix_alpha": 2.0, "mixup_prob": 0.8, "cutmix_prob": 0.6}
    alone = {
        0.0: ("lam", methods.create("mixup", alpha=0.3, prob=0.8, **common)),
        1.0: ("box", methods.create("cutmix", alpha=2.0, prob=0.6, **common)),
    }
    chosen = []
    for step in range(20):
        for switch, (field, method) in alone.items():
            joined = methods.create("mixup+cutmix", switch_prob=switch, **both, **common)
            plan, targets = joined.draw(labels, indices, step)
            expected, other = method.draw(labels, indices, step)
            assert torch.equal(getattr(plan, field), getattr(expected, field))
            assert torch.equal(targets.lam, other.lam)
        often, _ = methods.create("mixup+cutmix", switch_prob=0.9, **common).draw(labels, indices, step)
        chosen.append((often.lam == 1).float().mean().item())
    assert 0.75 <= np.mean(chosen) <= 1.0


def test_a_parameter_goes_to_one_method_by_its_name():
    _, labels, indices = batch(400)
    common = {"scope": "sample", "size": (16, 20)}
    method = methods.create("mixup+random_erasing", prob=0.5, random_erasing_prob=1.0, **common)
    plan, _ = method.draw(labels, indices, 1)
    assert torch.equal(plan.lam, methods.create("mixup", prob=0.5, **common).draw(labels, indices, 1)[0].lam)
    only = methods.create("random_erasing", prob=1.0, **common).draw(labels, indices, 1)[0]
    assert torch.equal(plan.box, only.box)
    with pytest.raises(InputError, match="no parameter 'cutout_prob'"):
        methods.create("mixup+random_erasing", cutout_prob=0.5)


@pytest.mark.parametrize(("length", "size"), [(None, (16, 20)), (5, (16, 20)), (40, (16, 20)), (None, (32, 32))])
def test_cutout_agrees_with_a_plain_version(length, size):
    images, labels, indices = batch(40, size)
    method = methods.create("cutout", length=length, size=size)
    plan, targets = method.draw(labels, indices, 2)
    half = (min(size) // 2 if length is None else length) // 2
    expected = normalized(flipped(images, plan))
    for image, (y0, x0, y1, x1) in zip(expected, plan.box.tolist()):
        image[:, y0:y1, x0:x1] = 0
        # some center inside the image explains the box
        assert any((max(c - half, 0), min(c + half, size[0])) == (y0, y1) for c in range(size[0]))
        assert any((max(c - half, 0), min(c + half, size[1])) == (x0, x1) for c in range(size[1]))
    torch.testing.assert_close(applied(images, plan), expected, rtol=1e-5, atol=1e-6)
    assert len({tuple(box) for box in plan.box.tolist()}) > 20 or half >= max(size)
    assert (targets.lam == 1).all()
    assert torch.equal(targets.b, labels)


def test_gaussian_noise_agrees_with_a_plain_version():
    images, labels, indices = batch(64, (8, 8))
    plan, _ = methods.create("gaussian_noise", size=8).draw(labels, indices, 0)
    normal = torch.randn(64, 8, 8, 3)
    out = augment(images, plan, mean=MEAN, std=STD, dtype=torch.float32, normal=normal)
    pixels = flipped(images, plan).float() / 255
    noisy = (pixels + plan.noise[:, None, None, None] * normal).clamp(0, 1)
    torch.testing.assert_close(out, normalized(noisy * 255), rtol=1e-4, atol=1e-4)


def test_none_is_the_images_and_flips_half_of_them():
    images, labels, indices = batch(400, (4, 4))
    plan, targets = methods.create("none", size=4).draw(labels, indices, 0)
    torch.testing.assert_close(applied(images, plan), normalized(flipped(images, plan)), rtol=1e-5, atol=1e-6)
    assert abs(plan.flip.float().mean() - 0.5) < 0.08
    assert [f for f in plan._fields if getattr(plan, f) is not None] == ["flip"]
    assert (targets.lam == 1).all()


def test_no_crop_flip_draws_nothing_and_sets_crop():
    _, labels, indices = batch()
    method = methods.create("no_crop_flip+cutout", size=(16, 20))
    plan, _ = method.draw(labels, indices, 0)
    assert plan.flip is None
    assert not method.crop
    assert methods.create("mixup").crop


@pytest.mark.parametrize("count", [1, 7, 64, 100, 200])
def test_partners_are_permuted_inside_groups(count):
    indices = torch.randperm(1000, generator=torch.Generator().manual_seed(count))[:count]
    plan, _ = methods.create("mixup").draw(indices, indices, 4)
    partner = plan.partner.numpy()
    assert sorted(partner) == list(range(count))
    assert (partner // GROUP == np.arange(count) // GROUP).all()
    if count >= 64:
        assert (partner != np.arange(count)).mean() > 0.8


def rows(result, part):
    """A slice of a draw's tensors, with partners counted from the slice's start."""
    plan, targets = result
    fields = {k: v[part] for k, v in plan._asdict().items() if v is not None}
    if "partner" in fields:
        fields["partner"] = fields["partner"] - part.start
    return fields | {f"target {k}": v[part] for k, v in targets._asdict().items()}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", PLAIN)
def test_draws_do_not_depend_on_how_a_global_batch_is_split(name, scope):
    """Two GPUs of 128, or four micro-batches of 64, draw what one GPU draws for 256."""
    _, labels, indices = batch(256, (4, 4))
    method = methods.create(name, scope=scope, dataset="cifar10", seed=2)
    whole = method.draw(labels, indices, 9)
    for length in (128, 64):
        for start in range(0, 256, length):
            part = slice(start, start + length)
            own = rows(method.draw(labels[part], indices[part], 9), slice(0, length))
            for key, value in rows(whole, part).items():
                assert torch.equal(own[key], value), (key, start)


@pytest.mark.parametrize("name", PLAIN)
def test_sample_scope_depends_on_sample_and_epoch_only(name):
    _, labels, indices = batch(32, (4, 4))
    method = methods.create(name, scope="sample", dataset="cifar10")
    one = method.draw(labels, indices, 100, epoch=3)
    same, other = method.draw(labels, indices, 7, epoch=3), method.draw(labels, indices, 100, epoch=4)
    part = slice(0, 32)
    assert all(torch.equal(value, rows(same, part)[key]) for key, value in rows(one, part).items())
    if name != "no_crop_flip":
        assert any(not torch.equal(value, rows(other, part)[key]) for key, value in rows(one, part).items())


@pytest.mark.parametrize("name", [n for n in PLAIN if n != "no_crop_flip"])
def test_draws_depend_on_seed_and_step(name):
    _, labels, indices = batch(32, (4, 4))
    keys = ((0, 0), (1, 0), (0, 1))
    draws = [rows(methods.create(name, seed=s).draw(labels, indices, t), slice(0, 32)) for s, t in keys]
    for other in draws[1:]:
        assert any(not torch.equal(value, other[key]) for key, value in draws[0].items())


@pytest.mark.parametrize("name", ["cutmix", "cutout", "mixup+cutmix", "random_erasing"])
def test_boxes_follow_the_size_of_the_step(name):
    _, labels, indices = batch(300, (4, 4))
    plan, _ = methods.create(name, scope="sample", size=224).draw(labels, indices, 0, size=(40, 24))
    assert (plan.box[:, 2].max(), plan.box[:, 3].max()) == (40, 24)


def test_dtypes_are_the_contracts():
    _, labels, indices = batch()
    plan, targets = methods.create("mixup+cutmix+gaussian_noise").draw(labels, indices, 0)
    kinds = {"flip": torch.bool, "noise": torch.float32, "partner": torch.int64, "lam": torch.float32}
    kinds |= {"box": torch.int32, "box_fill": torch.int8}
    assert {k: v.dtype for k, v in plan._asdict().items() if v is not None} == kinds
    assert (targets.a.dtype, targets.b.dtype, targets.lam.dtype) == (torch.int64, torch.int64, torch.float32)


def test_one_buffer_carries_every_array_to_a_device():
    """The path of a CUDA run, except that the far side is the meta device, which keeps shapes and dtypes only."""
    arrays = {"flip": np.ones(3, bool), "box": np.zeros((3, 4), np.int32), "lam": np.ones(3, np.float32)}
    sent = ship(arrays, torch.device("meta"))
    assert {k: (tuple(v.shape), v.dtype) for k, v in sent.items()} == {
        "flip": ((3,), torch.bool),
        "box": ((3, 4), torch.int32),
        "lam": ((3,), torch.float32),
    }


def test_a_component_that_writes_what_it_does_not_declare_is_an_error(monkeypatch):
    undeclared = methods.METHODS["gaussian_noise"]
    monkeypatch.setitem(methods.METHODS, "gaussian_noise", lambda context: undeclared(context)._replace(writes=()))
    with pytest.raises(ValueError, match=r"gaussian_noise drew \['noise'\] but declares \[\]"):
        methods.create("gaussian_noise", size=8).draw(torch.zeros(2), torch.arange(2), 0)


@pytest.mark.parametrize("name", ["mixup+cutmix", "cutout+shakedrop", "adversarial"])
def test_a_method_survives_pickling_with_its_parameters(name):
    parameters = {"seed": 5, "scope": "sample", "size": 16}
    method = methods.create(name, **parameters, **({"epsilon": 0.1} if name == "adversarial" else {}))
    copy = pickle.loads(pickle.dumps(method))
    labels, indices = torch.arange(8), torch.arange(8) + 40
    assert copy.name == method.name
    assert (copy.fields is None) == (method.fields is None)
    assert pickle.loads(pickle.dumps(method._replace(fields=None))).fields is None
    for one, two in zip(method.draw(labels, indices, 3), copy.draw(labels, indices, 3)):
        for own, other in zip(one, two):
            assert (own is None and other is None) or torch.equal(own, other)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"name": "mixpu"}, "did you mean 'mixup'"),
        ({"name": "mixup+"}, "unknown method"),
        ({"name": "mixup+ls"}, "`ls` 0.1"),
        ({"name": "mixup+mixup"}, "twice"),
        ({"name": "cutmix+cutout"}, "both draw the plan's box"),
        ({"name": "cutout+random_erasing"}, "only one of them"),
        ({"name": "adversarial+alp"}, "both change the training step"),
        ({"name": "alp+ood_svhn"}, "both change the training step"),
        ({"name": "shakedrop+stochastic_depth"}, "residual branches"),
        ({"name": "adversarial+cutout"}, "do not fit"),
        ({"name": "mixup", "scope": "image"}, "unknown `scope`"),
        ({"name": "mixup", "alhpa": 1.0}, "it takes alpha, prob"),
        ({"name": "mixup", "alpha": 0}, "`alpha` is 0: give a number greater than 0"),
        ({"name": "mixup", "alpha": float("nan")}, "`alpha` is nan: give"),
        ({"name": "cutmix", "prob": 1.5}, "at most 1"),
        ({"name": "cutout", "length": "half"}, "`length` is 'half': give"),
        ({"name": "cutout", "size": 0}, "`size` is 0: give 1 or more pixels"),
        ({"name": "gaussian_noise", "sigma": ()}, "`sigma` is empty: give at least one strength"),
        ({"name": "adversarial", "epsilon": -1}, "`epsilon` is -1: give"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, part):
    with pytest.raises(InputError, match=part):
        methods.create_method(**arguments)
