"""Command lines of timm and torchvision, pasted: the settings that each flag becomes."""

from __future__ import annotations

import pytest

from fastreg import training
from fastreg.cli import main
from fastreg.cli.options import FLAGS, one_value_each
from fastreg.errors import InputError
from fastreg.training import Config, make_config
from fastreg.training.flag_aliases import translate


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
    """timm's SE-ResNet command with DeiT's mixing, without flags that fastreg lacks (--remode, --aa)."""
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
    """torchvision's second ResNet-50 recipe, without flags that fastreg lacks (--auto-augment and others)."""
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
        ("--mixup 0.1 --mixup-mode batch", {"scope": "batch"}),
        ("--aug-repeats 3", {"aug_repeats": 3}),
        ("--aug-repeats 0", {"aug_repeats": 1}),
        ("--ra-sampler", {"aug_repeats": 3}),
        ("--ra-sampler --ra-reps 4", {"aug_repeats": 4}),
        ("--sampler balanced", {"sampler": "balanced"}),
    ],
)
def test_words(words, expected, config):
    found = config(f"imagenet --recipe paper/imagenet/baseline --batch-size 256 {words}")
    assert settings(found, expected) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--aa rand-m9", "No such option: --aa"),
        ("--warmup-lr 1e-5", "No such option: --warmup-lr"),
        ("--mixup-mode pair", "unknown --scope 'pair': known are batch, sample"),
        ("--opt adamw", "unknown --opt 'adamw'"),
        ("--mixup-prob 0.5", "--mixup-prob is for --mixup or --cutmix"),
        ("--mixup 0.1 --mixup-switch-prob 0.5", "--mixup-switch-prob is for --mixup and --cutmix"),
        ("--cutmix 1 --reprob 0.2", "both draw the plan's box"),
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


@pytest.mark.parametrize(
    ("dataset", "suite"), [("imagenet", "imagenet-c"), ("cifar10", "paper"), ("cifar100", "paper"), ("folder", "paper")]
)
def test_the_next_command_is_named_for_every_data_set(dataset, suite, config, capsys, tmp_path):
    config(dataset)
    assert capsys.readouterr().out.splitlines()[-1] == f"next: fastreg eval '{tmp_path}/a run' --suite {suite}"


def test_every_setting_has_a_flag_and_every_flag_a_meaning():
    flags = {name for rows in FLAGS.values() for name in rows} - {"gpus", "resume", "allow_changes"}
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
    }
    for name in flags - fields:
        rest: dict = {"mixup": 1.0, "cutmix": 1.0} if "prob" in name else {}
        rest |= {"ra_sampler": True} if name == "ra_reps" else {}
        found = translate({**rest, name: theirs.get(name, True)}, 10)
        assert name not in found
        assert found != translate(rest, 10)


def test_numbers_of_other_flags_stay_unchanged():
    words = "imagenet --lr 0.1 --torchcompile --decay-milestones 1 2 --epochs 3 --torchcompile"
    expected = "imagenet --lr 0.1 --torchcompile=default --decay-milestones 1,2 --epochs 3 --torchcompile=default"
    assert one_value_each(words.split()) == expected.split()


def test_python_accepts_the_same_names():
    config, _ = make_config("imagenet", gpu=True, mixup=0.4, warmup_epochs=3)
    assert (config.reg, config.reg_args["mixup_alpha"], config.warmup) == ("mixup", 0.4, 0.01)
