"""Command lines of timm and torchvision, pasted: the settings that each flag becomes."""

from __future__ import annotations

import pytest

from fastreg import training
from fastreg.cli import main
from fastreg.cli.options import FLAGS, one_value_each
from fastreg.errors import InputError
from fastreg.training import Config, make_config
from fastreg.training.flag_aliases import translate
from tests.support import peer


@pytest.fixture
def config(monkeypatch, capsys, tmp_path):
    """The settings that ``fastreg train WORDS`` would train with, or its error."""

    def run(words: str) -> Config:
        seen = []
        monkeypatch.setattr(training, "train", lambda config, **more: seen.append(config) or tmp_path / "a run")
        monkeypatch.setattr("sys.argv", ["fastreg", "train", *words.split()])
        with pytest.raises(SystemExit) as end:
            main()
        if end.value.code:
            raise InputError(capsys.readouterr().err)
        return seen[0]

    return run


def settings(config: Config, expected: dict) -> dict:
    return {key: getattr(config, key) for key in expected}


def test_a_command_of_timm(config):
    """timm's SE-ResNet command with DeiT's mixing, without a flag that fastreg lacks (--remode)."""
    found = config(
        "imagenet --data-dir data/other --model seresnet34 --sched cosine --epochs 150 --warmup-epochs 5 --lr 0.4 "
        "--opt sgd --momentum 0.9 --weight-decay 2e-5 --smoothing 0.1 --mixup 0.8 --cutmix 1.0 --mixup-prob 0.9 "
        "--mixup-switch-prob 0.4 --mixup-mode elem --drop-path 0.1 --batch-size 256 --amp --amp-dtype bfloat16 -j 4 "
        "--model-ema --clip-grad 1.0 --channels-last --torchcompile --experiment mine"
    )
    expected = {
        "data_dir": "data/other", "model": "seresnet34", "sched": "cosine", "epochs": 150, "warmup": 5 / 150,
        "lr": 0.4, "opt": "sgd", "momentum": 0.9, "weight_decay": 2e-5, "ls": 0.1, "batch_size": 256, "workers": 4,
        "reg": "mixup+cutmix+stochastic_depth", "scope": "sample", "precision": "bf16", "model_ema_decay": 0.9998,
        "clip_grad": 1.0, "channels_last": True, "torchcompile": "default", "name": "mine",
    }  # fmt: skip
    assert settings(found, expected) == expected
    assert found.reg_args == {
        "mixup_alpha": 0.8, "mixup_prob": 0.9, "cutmix_alpha": 1.0, "cutmix_prob": 0.9,
        "stochastic_depth_rate": 0.1, "switch_prob": 0.4,
    }  # fmt: skip


def test_a_command_of_torchvision(config):
    """torchvision's second ResNet-50 recipe, without flags that fastreg lacks."""
    found = config(
        "imagenet --data-path /data --model torchvision:resnet50 --batch-size 128 --lr 0.5 --lr-scheduler "
        "cosineannealinglr --lr-warmup-epochs 5 --epochs 600 --wd 0.00002 --label-smoothing 0.1 --mixup-alpha 0.2 "
        "--cutmix-alpha 1.0 --train-crop-size 176 --val-crop-size 224 --model-ema --clip-grad-norm 2 "
        "--opt sgd_nesterov --amp --sync-bn --output-dir out --print-freq 10"
    )
    expected = {
        "data_dir": "/data", "model": "torchvision:resnet50", "batch_size": 128, "lr": 0.5, "sched": "cosine",
        "warmup": 5 / 600, "epochs": 600, "weight_decay": 2e-5, "ls": 0.1, "reg": "mixup+cutmix", "size": 176,
        "eval_size": 224, "model_ema_decay": 0.9998, "clip_grad": 2.0, "opt": "sgd", "nesterov": True,
        "precision": "auto", "sync_bn": True, "output": "out", "log_interval": 10,
    }  # fmt: skip
    assert settings(found, expected) == expected
    assert found.reg_args["mixup_alpha"] == 0.2
    assert found.reg_args["cutmix_alpha"] == found.reg_args["mixup_prob"] == found.reg_args["cutmix_prob"] == 1.0


def arguments(method: str, **parameters) -> dict:
    return {f"{method}_{name}": value for name, value in parameters.items()}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--decay-milestones 90 180 270", {"milestones": (0.3, 0.6, 0.9)}),
        ("--milestones 0.5,0.75 --epochs 8", {"milestones": (0.5, 0.75), "epochs": 8}),
        ("--epochs 10 --decay-milestones 5 -b 4", {"milestones": (0.5,), "batch_size": 4}),
        ("--no-nesterov", {"nesterov": False}),
        ("--opt momentum", {"opt": "sgd", "nesterov": False}),
        ("--momentum 0", {"momentum": 0.0, "nesterov": False}),
        ("--blurpool", {"blurpool": True}),
        ("--stem cifar", {"stem": "cifar"}),
        ("--min-size 96 --size-ramp 0.5 0.75", {"min_size": 96, "size_ramp": (0.5, 0.75)}),
        ("--torchcompile --lr 0.1", {"torchcompile": "default", "lr": 0.1}),
        ("--torchcompile inductor", {"torchcompile": "default"}),
        ("--torchcompile max-autotune", {"torchcompile": "max-autotune"}),
        ("--amp-dtype float16", {"precision": "fp16"}),
        ("--model-ema", {"model_ema_decay": 0.9998, "model_ema_warmup": True}),
        ("--model-ema --no-model-ema-warmup", {"model_ema_decay": 0.9998, "model_ema_warmup": False}),
        ("--model-ema --model-ema-decay 0.99", {"model_ema_decay": 0.99, "model_ema_warmup": False}),
        ("--model-ema-decay 0.99 --model-ema-warmup", {"model_ema_decay": 0.99, "model_ema_warmup": True}),
        ("--lr-scheduler steplr", {"sched": "step"}),
        ("--mixup 0 --cutmix 0 --reprob 0", {"reg": "none", "reg_args": {}}),
        ("--mixup 0.2", {"reg": "mixup", "reg_args": {"mixup_alpha": 0.2, "mixup_prob": 1.0}}),
        ("--cutmix 1", {"reg": "cutmix", "reg_args": {"cutmix_alpha": 1.0, "cutmix_prob": 1.0}}),
        ("--reg cutout --mixup 0.2", {"reg": "cutout+mixup"}),
        ("--reg cutmix --mixup-prob 0.3", {"reg": "cutmix", "reg_args": {"cutmix_prob": 0.3}}),
        ("--mixup 0.1 --reprob 0.25", {"reg": "mixup+random_erasing"}),
        ("--cutmix 1 --reprob 0.2", {"reg": "cutmix+random_erasing"}),
        (
            "--mixup 0.8 --cutmix 1 --mixup-prob 1 --reprob 0.25 --remode pixel",
            {
                "reg": "mixup+cutmix+random_erasing",
                "reg_args": {
                    "mixup_alpha": 0.8,
                    "mixup_prob": 1.0,
                    "cutmix_alpha": 1.0,
                    "cutmix_prob": 1.0,
                    "random_erasing_prob": 0.25,
                    "random_erasing_mode": "pixel",
                },
            },
        ),
        ("--reprob 0 --remode pixel", {"reg": "none", "reg_args": {}}),
        ("--mixup 0.1 --mixup-mode batch", {"scope": "batch"}),
        ("--aug-repeats 3", {"aug_repeats": 3}),
        ("--aug-repeats 0", {"aug_repeats": 1}),
        ("--ra-sampler", {"aug_repeats": 3}),
        ("--ra-sampler --ra-reps 4", {"aug_repeats": 4}),
        ("--sampler balanced", {"sampler": "balanced"}),
        (
            "--aa rand-m9-mstd0.5-inc1",
            {
                "reg": "rand_augment",
                "reg_args": arguments("rand_augment", law="timm", magnitude=9, mstd=0.5, inc=True),
                "color_jitter": 0.0,
                "lighting": 0.0,
            },
        ),
        (
            "--aa rand-n3-p0.4-mmax20-tweights --mixup 0.2 --color-jitter 0.1",
            {
                "reg": "rand_augment+mixup",
                "reg_args": {
                    **arguments("rand_augment", law="timm", magnitude=10, num_ops=3, prob=0.4, magnitude_max=20),
                    **arguments("rand_augment", weights=True),
                    **arguments("mixup", alpha=0.2, prob=1.0),
                },
                "color_jitter": 0.1,
            },
        ),
        (
            "--aa augmix-m5-w4-d2 --aug-splits 3 --jsd-loss",
            {
                "reg": "augmix",
                "reg_args": arguments("augmix", law="timm", severity=5, width=4, depth=2, jsd=True),
            },
        ),
        (
            "--aa rand-m9-mstd101 --aug-splits 3 --jsd-loss",
            {
                "reg": "rand_augment",
                "reg_args": arguments("rand_augment", law="timm", magnitude=9, mstd=101.0, jsd=True),
            },
        ),
        (
            "--auto-augment ta_wide --mixup-alpha 0.2",
            {
                "reg": "trivial_augment+mixup",
                "reg_args": {
                    **arguments("trivial_augment", interpolation="bilinear"),
                    **arguments("mixup", alpha=0.2, prob=1.0),
                },
            },
        ),
        (
            "--auto-augment ra --ra-magnitude 12",
            {
                "reg": "rand_augment",
                "reg_args": arguments("rand_augment", magnitude=12, interpolation="bilinear"),
            },
        ),
        (
            "--auto-augment imagenet",
            {
                "reg": "auto_augment_policy",
                "reg_args": arguments("auto_augment_policy", policy="imagenet", interpolation="bilinear"),
            },
        ),
        (
            "--auto-augment augmix --augmix-severity 2",
            {"reg": "augmix", "reg_args": arguments("augmix", severity=2, all_ops=True, jsd=False)},
        ),
        ("--opt adamw --opt-betas 0.9 0.95", {"opt": "adamw", "lr": 1e-3, "opt_betas": (0.9, 0.95)}),
        ("--opt-eps 1e-6 --opt adam --lr 1e-3", {"opt": "adam", "opt_eps": 1e-6}),
        ("--opt timm:lamb --lr 5e-3 --sched cosine --min-lr 1e-6", {"opt": "timm:lamb", "lr": 5e-3, "min_lr": 1e-6}),
        ("--epochs 90 --cooldown-epochs 10 --warmup-epochs 5", {"epochs": 100, "cooldown": 0.1, "warmup": 0.05}),
        ("--epochs 95 --warmup-epochs 5 --warmup-prefix", {"epochs": 100, "cooldown": 0.0, "warmup": 0.05}),
        (
            "--sched step --decay-epochs 30 --epochs 90 --decay-rate 0.2",
            {"milestones": (1 / 3, 2 / 3), "decay_rate": 0.2},
        ),
        ("--lr-step-size 0.5 --epochs 2 --lr-gamma 0.5", {"milestones": (0.25, 0.5, 0.75), "decay_rate": 0.5}),
        ("--warmup-lr 1e-5 --sched-on-updates", {"warmup_lr": 1e-5}),
        ("--lr 0.5 --lr-warmup-method linear --lr-warmup-decay 0.01", {"warmup_lr": 0.005}),
        ("--layer-decay 0.75 --freeze conv1,layer1", {"layer_decay": 0.75, "freeze": ("conv1", "layer1")}),
        ("--val-resize-size 232 --interpolation bicubic", {"crop_pct": 224 / 232, "interpolation": "bicubic"}),
        ("--pretrained", {"pretrained": True, "initial_checkpoint": None}),
        ("--initial-checkpoint w.pth --weights-key ema", {"initial_checkpoint": "w.pth", "weights_key": "ema"}),
        (
            "--model timm:vit_tiny_patch16_224 --drop 0.1 --drop-path 0.2 --img-size 224",
            {"model_kwargs": {"drop_rate": 0.1, "drop_path_rate": 0.2}, "reg": "none"},
        ),
        ('--model-kwargs {"zero_init_residual":true}', {"model_kwargs": {"zero_init_residual": True}}),
    ],
)
def test_words(words, expected, config):
    found = config(f"imagenet --recipe paper/imagenet/baseline --batch-size 256 {words}")
    assert settings(found, expected) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--aa original", "--aa original: fastreg has AutoAugment's policies with torchvision's ranges"),
        ("--aa v0-mstd0.5", "give --auto-augment imagenet"),
        ("--aa rand-m9-w0", "--aa rand-m9-w0: unknown section 'w0'; known are m, n, p, mstd, mmax, inc"),
        ("--aa rand-t3a", "has a Gaussian blur, which fastreg lacks"),
        ("--aa rand-mx", "--aa rand-mx: unknown section 'mx'"),
        ("--aa rand-m9.5", "--aa rand-m9.5: m is '9.5': give a number, such as m1"),
        ("--aa rand-m9-p2", "`prob` is 2.0: give a number at least 0 and at most 1"),
        ("--aa augmix-b1", "b1 blends images of 8 bits chain by chain"),
        ("--aa trivial", "unknown --aa 'trivial': known are rand-m9-mstd0.5-inc1, augmix-m3-w3"),
        ("--aa rand-m9 --auto-augment ra", "--aa and --auto-augment both choose"),
        ("--auto-augment svhn", "unknown --auto-augment 'svhn': known are ra, ta_wide, imagenet, cifar10, augmix"),
        ("--ra-magnitude 9", "--ra-magnitude is for --auto-augment ra: give both"),
        ("--augmix-severity 9 --auto-augment ra", "--augmix-severity is for --auto-augment augmix: give both"),
        ("--aa rand-m9 --aug-splits 2 --jsd-loss", "--aug-splits is 2: give 3"),
        ("--aa rand-m9 --aug-splits 3", "--aug-splits needs --jsd-loss: give both"),
        ("--aa rand-m9 --jsd-loss", "--jsd-loss needs --aug-splits: give both"),
        ("--reg augmix --jsd-loss --aug-splits 3", "give --aa, or --reg augmix alone"),
        ("--aa augmix-m3 --aug-splits 3 --jsd-loss --reg alp", "both change the training step"),
        ("--mixup-mode pair", "--mixup-mode pair: pairs are drawn per batch or per sample"),
        ("--opt adamv", "unknown --opt 'adamv': known are sgd, adam, adamw, timm:NAME; did you mean 'adam'?"),
        ("--opt timm:lamb", "--opt timm:lamb needs --lr: the recipe's rate 0.05 is for sgd."),
        ("--opt-eps 1e-8", "--opt-eps is for Adam and others, and --opt is sgd: leave it out."),
        ("--opt adamw --opt-betas 0.9", "--opt-betas is (0.9,): give two numbers for adamw."),
        ("--val-resize-size 20", "--val-resize-size is 20: give a number at least 64."),
        ("--interpolation cubic", "unknown --interpolation 'cubic': known are bilinear, bicubic"),
        ("--min-lr 0.5", "--min-lr 0.5 is more than --lr 0.05"),
        ("--lr-warmup-decay 0.01", "--lr-warmup-decay is a factor of the learning rate: give --lr, or --warmup-lr"),
        ("--lr-warmup-method constant", "--lr-warmup-method is 'constant': the warm-up is linear."),
        ("--decay-epochs 0", "--decay-epochs is 0: give more than 0 epochs."),
        ("--drop 0.1", "--drop is for models of timm, not for resnet18: give --model-args."),
        ("--pretrained --initial-checkpoint w.pth", "--pretrained and --initial-checkpoint are both weights"),
        ("--pretrained --stem cifar", "--pretrained weights have the imagenet --stem, not cifar"),
        ("--weights-key ema", "--weights-key is for the file of --initial-checkpoint"),
        ("--cooldown 0.6 --warmup 0.6", "warm-up and cooldown are 0.6 and 0.6 of the run"),
        ("--mixup-prob 0.5", "--mixup-prob is for --mixup or --cutmix"),
        ("--mixup 0.1 --mixup-switch-prob 0.5", "--mixup-switch-prob is for --mixup and --cutmix"),
        ("--cutmix 1 --remode pixel", "--remode is for random erasing: give --reprob"),
        ("--reprob 0.2 --remode noise", "unknown --remode 'noise': known are const, pixel."),
        ("--warmup-epochs 5 --epochs 1", "fastreg: --warmup-epochs 5 is more than the 1 epochs of the run."),
        ("--warmup-epochs -1", "fastreg: --warmup-epochs -1 is not 0 or more epochs."),
        ("--epochs 8 --decay-milestones 4 90", "fastreg: --milestones 90 is more than the 8 epochs of the run."),
        ("--epochs abc", "fastreg: --epochs abc: give a whole number."),
        ("--epochs=1.5", "fastreg: --epochs 1.5: give a whole number."),
        ("--batch-size 4 -b x", "fastreg: -b x: give a whole number."),
        ("--smoothing much", "fastreg: --smoothing much: give a number."),
        ("--milestones often", "--milestones often: give numbers separated by commas"),
        ("--ra-reps 4", "--ra-reps is for --ra-sampler: give both"),
        ("--aug-repeats -1", "--aug-repeats is -1: give at least 1"),
        ("--sampler weighted", "unknown --sampler 'weighted': known are random, balanced"),
        ("--sampler balanced --order pages", "--sampler balanced shuffles image by image, and --order pages by pages"),
        ("--gpus 0", "--gpus is 0: give at least 1"),
        ("--gpus -1", "--gpus is -1: give at least 1"),
        (
            "--momentum 0 --nesterov",
            "--momentum is 0: give --momentum, or turn --nesterov off",
        ),
    ],
)
def test_flags_without_a_meaning_here_are_errors(words, message, config):
    with pytest.raises(InputError) as error:
        config(f"imagenet {words}")
    assert message in str(error.value)


def test_an_optimizer_that_only_timm_has_names_timm(config):
    peer("timm")
    with pytest.raises(InputError, match="--opt lamb: an optimizer of timm: give --opt timm:lamb"):
        config("imagenet --opt lamb --lr 5e-3")


@pytest.mark.parametrize(
    ("dataset", "suite"), [("imagenet", "imagenet-c"), ("cifar10", "paper"), ("cifar100", "paper"), ("folder", "paper")]
)
def test_the_next_command_is_named_for_every_data_set(dataset, suite, config, capsys, tmp_path):
    config(dataset)
    assert capsys.readouterr().out.splitlines()[-1] == f"next: fastreg eval '{tmp_path}/a run' --suite {suite}"


def test_every_setting_has_a_flag_and_every_flag_a_meaning():
    flags = {name for rows in FLAGS.values() for name in rows} - {
        "gpus",
        "resume",
        "allow_changes",
        "config",
        "faithful",
        "seeds",
    }
    flags -= {"sched_on_updates", "lr_warmup_method"}  # always so: per step, linear
    fields = set(Config.__dataclass_fields__) - {"dataset", "global_batch"}  # the batch belongs to the recipe
    assert fields <= flags
    theirs = {
        "mixup_prob": 0.5,
        "mixup_switch_prob": 0.5,
        "mixup": 1.0,
        "cutmix": 1.0,
        "drop_path": 0.1,
        "warmup_epochs": 1,
        "ra_reps": 4,
        "aa": "rand-m9",
        "auto_augment": "ta_wide",
        "ra_magnitude": 3,
        "augmix_severity": 2,
        "aug_splits": 3,
        "cooldown_epochs": 1,
        "decay_epochs": 1,
        "drop": 0.1,
        "lr_warmup_decay": 0.1,
        "val_resize_size": 232,
        "remode": "pixel",
    }
    theirs_need = {
        "warmup_prefix": {"warmup_epochs": 1},
        "lr_warmup_decay": {"lr": 0.1},
        "ra_reps": {"ra_sampler": True},
        "ra_magnitude": {"auto_augment": "ra"},
        "augmix_severity": {"auto_augment": "augmix"},
        "remode": {"reprob": 0.1},
    }
    for name in flags - fields:
        rest: dict = {"mixup": 1.0, "cutmix": 1.0} if "prob" in name else theirs_need.get(name, {})
        base = {"epochs": 10, "model": "timm:resnet18" if name == "drop" else "resnet18"}
        if name in ("aug_splits", "jsd_loss"):  # each needs the other
            with pytest.raises(InputError, match=f"`{name}` needs"):
                translate({"aa": "rand-m9", name: theirs.get(name, True)}, base)
            continue
        found = translate({**rest, name: theirs.get(name, True)}, base)
        assert name not in found
        assert found != translate(rest, base)


def test_numbers_of_other_flags_stay_unchanged():
    words = "imagenet --lr 0.1 --torchcompile --decay-milestones 1 2 --epochs 3 --torchcompile"
    expected = "imagenet --lr 0.1 --torchcompile=default --decay-milestones 1,2 --epochs 3 --torchcompile=default"
    assert one_value_each(words.split()) == expected.split()


def test_python_accepts_the_same_names():
    config, _ = make_config("imagenet", gpu=True, mixup=0.4, warmup_epochs=3)
    assert (config.reg, config.reg_args["mixup_alpha"], config.warmup) == ("mixup", 0.4, 0.01)
