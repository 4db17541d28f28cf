"""A run trained otherwise than its paper row has a star and the list of the settings that differ, everywhere."""

import csv
import re
from dataclasses import fields

import numpy as np
import pytest
import torch

from fastreg import methods
from fastreg.evaluation import Scorecard
from fastreg.recipes import PAPER
from fastreg.report import paper, paper_comparison, print_scorecard, write_report
from fastreg.report.paper_comparison import FREE, N_TRAIN, recipe, training_differences
from fastreg.training.config import ADDED, Config, to_dict
from fastreg.training.recipe_table import recipe_config
from fastreg.training.run_config import make_config
from tests.fastreg.report.make_runs import make_run, paper_settings, read_report

# setting -> another value, and the settings without which it has no effect
OTHER = {
    "model": "resnet18",
    "stem": "cifar",
    "blurpool": True,
    "ls": 0.4,
    "bce_loss": True,
    "bce_target_threshold": 0.2,
    "bce_sum": True,
    "class_weight": "balanced",
    "sampler": "balanced",
    "aug_repeats": 3,
    "scope": "sample",
    "reg_args": {"alpha": 0.2},
    "mixup_off_epoch": 200,
    "epochs": 90,
    "global_batch": 2048,
    "opt": "adam",
    "lr": 2.0,
    "momentum": 0.85,
    "nesterov": False,
    "weight_decay": 5e-4,
    "norm_weight_decay": False,
    "sched": "cosine",
    "milestones": [0.3, 0.6],
    "warmup": 0.1,
    "clip_grad": 1.0,
    "model_ema_decay": 0.999,
    "model_ema_warmup": True,
    "size": 160,
    "eval_size": 256,
    "min_size": 128,
    "size_ramp": [0.1, 0.2],
    "shift": 2,
    "color_jitter": 0.1,
    "lighting": 0.05,
    "loader": "dali",
    "on_bad_image": "skip",
    "order": "pages",
    "precision": "bf16",
    "sync_bn": True,
    "batch_size": 8,
    "val_share": 0.1,
    "class_map": "timm",
    "channels": 1,
    "model_kwargs": {"zero_init_residual": True},
    "pretrained": True,
    "initial_checkpoint": "weights.pth",
    "weights_key": "ema",
    "freeze": ["layer1"],
    "opt_eps": 1e-3,
    "opt_betas": [0.8, 0.9],
    "layer_decay": 0.75,
    "decay_rate": 0.2,
    "min_lr": 1e-5,
    "warmup_lr": 1e-4,
    "warmup_overlap": True,
    "cooldown": 0.1,
    "crop_pct": 0.95,
    "interpolation": "bicubic",
    "model_ema_every": 32,
}
NEEDS = {"size_ramp": {"min_size": 128}, "model_ema_warmup": {"model_ema_decay": 0.99}}
NEEDS |= {"bce_target_threshold": {"bce_loss": True}, "bce_sum": {"bce_loss": True}}
IDENTITY = {"dataset", "reg"}  # another value: another row, or none
COMPARED = [field.name for field in fields(Config) if field.name not in IDENTITY | FREE.keys()]


def settings_of(name):
    """config.json of a run of a recipe, on a CPU or with precision fp32."""
    config = recipe_config(name)
    return to_dict(config) | paper_settings(config.dataset, config.reg, config.ls)


@pytest.mark.parametrize("name", PAPER)
def test_a_run_of_a_recipe_has_no_star(name):
    assert recipe(settings_of(name)) == name
    assert training_differences(settings_of(name)) == []


def test_every_setting_is_compared_or_leaves_the_model_the_same():
    known = {field.name for field in fields(Config)}
    assert known == OTHER.keys() | IDENTITY | FREE.keys()
    assert OTHER.keys() & FREE.keys() == {"batch_size"}  # compared with the images of a batch norm
    assert all(FREE.values())  # the reasons
    assert set(paper_comparison.DEPENDENT) <= OTHER.keys()


@pytest.mark.parametrize("field", OTHER)
@pytest.mark.parametrize("name", ["paper/imagenet/mixup+ls", "paper/cifar100/cutmix+shakedrop+ls"])
def test_each_setting_that_differs_is_named(name, field):
    """Each field is changed alone."""
    other = "imagenet" if field == "stem" and "cifar" in name else OTHER[field]
    changed = settings_of(name) | NEEDS.get(field, {}) | {field: other}
    if field in ("precision", "loader"):
        changed[f"{field}_used"] = OTHER[field]
    found = training_differences(changed)
    assert len(found) == 1 + len(NEEDS.get(field, {}))
    assert any(one.startswith(f"{field} ") for one in found)


@pytest.mark.parametrize("field", sorted(ADDED))
def test_a_setting_that_earlier_runs_lack_has_its_default(field):
    settings = settings_of("paper/imagenet/mixup") | NEEDS.get(field, {})
    settings.pop(field)
    assert not any(field in one for one in training_differences(settings))


@pytest.mark.parametrize("field", [field for field in COMPARED if field not in ADDED])
def test_a_setting_that_is_not_known_is_named(field):
    settings = settings_of("paper/imagenet/mixup") | NEEDS.get(field, {})
    for key in (field, f"{field}_used"):
        settings.pop(key, None)
    assert training_differences(settings)[-1] == f"unknown: {field}"


@pytest.mark.parametrize("field", sorted(IDENTITY))
def test_other_methods_and_other_data_have_another_row_or_none(field):
    settings = settings_of("paper/imagenet/mixup")
    assert recipe(settings | {field: "cifar10" if field == "dataset" else "mixup+shakedrop"}) is None
    assert recipe(settings | {field: "cifar100" if field == "dataset" else "cutmix"}) not in (None, recipe(settings))


@pytest.mark.parametrize("field", sorted(FREE.keys() - {"batch_size"}))
def test_settings_of_a_machine_or_of_the_folder_are_free(field):
    assert training_differences(settings_of("paper/imagenet/mixup") | {field: "another"}) == []


def test_a_run_of_unknown_methods_stands_beside_no_row():
    settings = settings_of("paper/imagenet/baseline")
    del settings["reg"]
    assert recipe(settings) is None
    assert training_differences(settings) == []


def test_facts_of_the_run_that_are_no_settings():
    settings = settings_of("paper/cifar100/baseline")
    assert training_differences(settings | {"n_train": 1200}) == ["n_train 1200 instead of 50000"]
    assert training_differences({k: v for k, v in settings.items() if k != "n_train"}) == ["unknown: n_train"]
    log = [{"kind": "epoch", "epoch": epoch} for epoch in range(120)]
    assert training_differences(settings, log) == ["stopped after 120 of 300 epochs"]
    assert training_differences(settings, [{"kind": "epoch", "epoch": 299}]) == []


def test_parameters_that_are_the_methods_own_defaults_are_no_difference():
    """The defaults that a method chooses by itself draw the same plans as these values."""
    for (name, key), choose in paper_comparison._CHOSEN.items():
        for dataset in N_TRAIN:
            config = recipe_config(f"paper/{dataset}/{name}")
            value = choose(config)
            keys = {"dataset": dataset, "size": config.size}
            plans = [
                methods.create(name, **keys, **own).draw(torch.arange(64) % 10, torch.arange(64), 3)[0]
                for own in ({}, {key: value}, {key: value / 2 if isinstance(value, float) else value // 2})
            ]
            boxes = [np.asarray(plan.box).tolist() for plan in plans]
            assert boxes[0] == boxes[1]
            settings = settings_of(f"paper/{dataset}/{name}")
            assert training_differences(settings | {"reg_args": {key: value}}) == []
            assert training_differences(settings | {"reg_args": {f"{name}_{key}": value}}) == []
    gan = settings_of("paper/cifar100/ood_gan")
    assert training_differences(gan | {"reg_args": {"ood": "runs/gan"}}) == []
    assert training_differences(gan | {"reg_args": {"weight": 0.5}}) == ["reg_args weight 0.5 instead of 1"]
    assert training_differences(gan | {"reg_args": {"no": 1}}) == ["reg_args {'no': 1}"]


def test_the_values_of_the_original_code_are_no_difference():
    for dataset, reg, ls in (("imagenet", "shakedrop", 0.1), ("cifar100", "ood_gan", 0.0), ("cifar100", "cutmix", 0.1)):
        config, _ = make_config(dataset, gpu=True, reg=reg, ls=ls, faithful=True)
        trained = to_dict(config) | {"n_train": N_TRAIN[dataset], "precision_used": "fp32", "loader_used": "folder"}
        assert recipe(trained) is not None
        assert training_differences(trained) == []
    for name in ("shakedrop", "ood_svhn", "ood_gan"):
        settings = settings_of(f"paper/cifar100/{name}")
        for key in methods.create(name, dataset="cifar100").original:
            (one,) = training_differences(settings | {"reg_args": {key: 7}})
            assert one.startswith(f"reg_args {key.removeprefix(f'{name}_')} 7 instead of ")


EXAMPLES = {
    "schedule": (
        {"reg": "mixup", "reg_args": {"alpha": 0.2}, "lr": 2.0, "global_batch": 2048, "sched": "cosine"},
        "Mixup",
        "global_batch 2048 instead of 256; lr 2 instead of 0.1; sched cosine instead of step; "
        "reg_args alpha 0.2 instead of 1",
    ),
    "smoothing": ({"reg": "cutmix", "ls": 0.4}, "CutMix + LS", "ls 0.4 instead of 0.1"),
    "length": (
        {"reg": "cutout", "reg_args": {"length": 8}, "dataset": "cifar100"},
        "Cutout",
        "reg_args length 8 instead of 16",
    ),
    "alp": ({"reg": "alp", "ls": 0.0, "dataset": "cifar100"}, "Adversarial Logit Pairing + LS", "ls 0 instead of 0.1"),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_run_trained_otherwise_has_a_star_and_the_reasons_everywhere(tmp_path, capsys, monkeypatch, example):
    monkeypatch.setenv("COLUMNS", "200")
    given, label, why = EXAMPLES[example]
    folder = make_run(tmp_path, example, **given)
    report = write_report([folder])
    text = read_report(report)[1]
    assert f"* trained otherwise than the paper's {label}: {example}: {why}." in text
    assert f'<abbr title="trained otherwise: {why}">*</abbr>' in report.read_text()
    assert "<small>+" not in report.read_text()  # no signed difference
    assert "<small>-" not in report.read_text()
    markdown = report.with_suffix(".md").read_text()
    assert f"| {example}\\* |" in markdown
    assert f"* \\* trained otherwise than the paper's {label}: {example}: {why}" in markdown
    rows = list(csv.DictReader(report.with_suffix(".csv").read_text().splitlines()))
    assert [(row["run"], row["trained_otherwise"]) for row in rows] == [(example, why), ("paper", "")]
    paper("table1" if "dataset" in given else "table4", tmp_path)
    out = capsys.readouterr().out
    assert f"  {example}* (n = " in out
    assert f"* trained otherwise than the paper's {label}: {example}: {why}." in out
    card = Scorecard.load(folder / "scorecard.json")
    card.provenance["training"] = settings_of(f"paper/{given.get('dataset', 'imagenet')}/baseline") | given
    print_scorecard(card)
    out = capsys.readouterr().out
    assert f"* trained otherwise than the paper's {label}: resnet50: {why}" in out
    assert re.search(rf"paper: +{re.escape(label)}\*", out)


def test_the_terminal_prints_the_papers_figures_beside_those_measured_alike(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    card = Scorecard.load(make_run(tmp_path, "run") / "scorecard.json")
    card.provenance["training"] = settings_of("paper/imagenet/mixup")
    card.suites["fgsm"]["settings"]["clip"] = False
    print_scorecard(card, "clean")
    lines = capsys.readouterr().out.splitlines()
    (clean,) = [line for line in lines if line.startswith("│ Clean")]
    (fgsm,) = [line for line in lines if line.startswith("│ FGSM")]
    assert "22.58" in clean
    assert "80.00*" in fgsm
    assert fgsm.rstrip(" │").endswith("–")
    assert any(line.startswith("* measured otherwise than in the paper: ") and "FGSM" in line for line in lines)
    assert not any("trained otherwise" in line for line in lines)


def test_what_a_recipe_leaves_different_from_the_original_code_is_named_everywhere(tmp_path, capsys):
    """A faithful run has fewer topics; neither has a star."""
    folders = []
    for name, faithful in (("usual", False), ("faithful", True)):
        config, _ = make_config("imagenet", gpu=True, reg="mixup", faithful=faithful)
        own = {**to_dict(config), "precision_used": "fp32", "device_used": "cuda", "name": name}
        folders.append(make_run(tmp_path, name, **{key: own[key] for key in own if key not in ("dataset", "name")}))
    report = write_report(folders)
    usual = "TF32, batch norm, running statistics, last batch, mixing partners, color jitter, best epoch"
    lines = [
        f"{name}: a recipe's training differs from the original code in {topics} (docs/departures.md)"
        for name, topics in (("usual", usual), ("faithful", "running statistics, mixing partners"))
    ]
    paper("table4", tmp_path)
    shown = [read_report(report)[1], report.with_suffix(".md").read_text(), capsys.readouterr().out]
    for text in shown:
        assert all(line in text for line in lines)
        assert "trained otherwise than" not in text
