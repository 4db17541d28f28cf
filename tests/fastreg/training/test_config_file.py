"""A run as a file: recipes written and read back, a run's own config.json, flags that override, wrong files."""

from __future__ import annotations

import json
import sys

import pytest

from fastreg.cli import main
from fastreg.errors import InputError
from fastreg.recipes import ALL
from fastreg.training import make_config, train
from fastreg.training.config import to_dict
from fastreg.training.config_file import read_config, recipe_file
from tests.fastreg.training.tiny_runs import settings

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_comes_back_from_its_file(name, tmp_path):
    dataset = {"cifar": "cifar10"}.get(name.split("/")[1], name.split("/")[1])
    wanted, _ = make_config(dataset, gpu=True, world=2, recipe=name)
    for as_json in (False, True):
        path = tmp_path / f"run.{'json' if as_json else 'yaml'}"
        path.write_text(recipe_file(name, as_json))
        found, messages = make_config(dataset, gpu=False, world=2, settings=read_config(path))
        assert found == wanted
        assert messages[0].endswith("; settings of a file")


def test_flags_override_a_file_and_its_batch_scales_the_rate(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("recipe: short/imagenet\nepochs: 20\nwarmup_epochs: 5\nlr: 1e-1\nglobal_batch: 64\n")
    config, _ = make_config("imagenet", gpu=True, settings=read_config(path), batch_size=32, ls=0.1)
    assert (config.model, config.epochs, config.warmup, config.ls) == ("resnet18", 20, 0.25, 0.1)
    assert (config.lr, config.global_batch) == (0.05, 32)
    path.write_text("batch_size: 64\nlr: 0.3\nmixup: 0.2\nmilestones: [0.5]\nblurpool: true\nfreeze: conv1\n")
    config, _ = make_config("imagenet", gpu=False, settings=read_config(path))
    assert (config.lr, config.global_batch, config.reg, config.milestones) == (0.3, 64, "mixup", (0.5,))
    assert (config.blurpool, config.freeze) == (True, ("conv1",))


def test_the_methods_of_a_flag_do_not_get_the_parameters_of_the_files_methods():
    stored = {"reg": "cutmix", "reg_args": {"alpha": 0.3}, "global_batch": 32, "epochs": 2, "lr": 0.1}
    config, _ = make_config("imagenet", gpu=False, settings=stored, reg="cutout")
    assert (config.reg, config.reg_args) == ("cutout", {})
    config, _ = make_config("imagenet", gpu=False, settings=stored, reg_args={"prob": 0.5})
    assert (config.reg, config.reg_args) == ("cutmix", {"alpha": 0.3, "prob": 0.5})


def test_the_file_of_a_run_trains_the_same_run(quick, data, tmp_path, capsys):
    folder = train(settings("cutmix", tmp_path, data, reg_args={"alpha": 0.5}))
    again = ["fastreg", "train", "--config", str(folder), "--name", "again"]
    quick.setattr("sys.argv", again)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, capsys.readouterr().err
    one, two = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("run", "again"))
    assert {**one, "name": "again"} == two
    assert (folder / "log.csv").read_text().split("\n")[1].split(",")[2] == (
        tmp_path / "again" / "log.csv"
    ).read_text().split("\n")[1].split(",")[2]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.yaml", "lrr: 0.1", r"unknown setting in .*run.yaml: 'lrr': known are .*did you mean 'lr'"),
        ("run.yaml", "epochs: 1.5", r"`epochs` in .*run.yaml is 1.5: give a whole number"),
        ("run.yaml", "blurpool: 1", r"`blurpool` in .*run.yaml is 1: give true or false"),
        ("run.yaml", "lr: high", r"`lr` in .*run.yaml is 'high': give a number"),
        ("run.yaml", "reg_args: 3", r"`reg_args` in .*run.yaml is 3: give a table"),
        ("run.yaml", "freeze: [1]", r"`freeze` in .*run.yaml is 1: give a word"),
        ("run.yaml", "- lr", r"run.yaml contains no settings"),
        ("run.yaml", "lr: [", r"run.yaml is not YAML \(line"),
        ("run.json", "lr: 0.1", r"run.json is not JSON \(Expecting value, line 1\)"),
    ],
)
def test_wrong_files(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"`config` .*none\.yaml cannot be read"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "run.yaml").write_text("lr: 0.1")
    (tmp_path / "same.yaml").write_text('{"lr": 0.1}')
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(InputError, match="needs PyYAML, which is not installed: pip install pyyaml"):
        read_config(tmp_path / "run.yaml")
    assert read_config(tmp_path / "same.yaml") == {"lr": 0.1}


def test_the_command_prints_yaml_and_json(monkeypatch, capsys):
    for words, parse in (("short/cifar", yaml.safe_load), ("short/cifar --json", json.loads)):
        monkeypatch.setattr("sys.argv", ["fastreg", "config", *words.split()])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        content = parse(capsys.readouterr().out)
        config, _ = make_config("cifar100", gpu=False, recipe="short/cifar")
        wanted = {key: value for key, value in json.loads(json.dumps(to_dict(config))).items() if value is not None}
        assert content == {key: value for key, value in wanted.items() if key != "batch_size"}
