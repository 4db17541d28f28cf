"""``train --seeds`` and ``eval`` of several runs, as commands; training and evaluation themselves are replaced."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

import fastreg.evaluation.from_checkpoint
import fastreg.report
import fastreg.training
from fastreg.cli import main
from fastreg.errors import InputError, RunError, SharedError
from fastreg.training import make_config
from fastreg.training.seeds import of_seeds, parse_seeds


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["fastreg", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """(name, seed, resume) of each run; the run of seed 7 is interrupted."""
    calls = []

    def train(config, *, resume, allow_changes):
        calls.append((config.name, config.seed, resume))
        if config.seed == 7:
            raise SharedError("stopped at step 3; continue with: fastreg train ...")
        return tmp_path / config.name

    monkeypatch.setattr(fastreg.training, "train", train)
    return calls


def test_seeds_are_trained_in_turn(monkeypatch, capsys, trained):
    assert run(monkeypatch, "train", "cifar100", "--seeds", "0,2,1", "--name", "mine", "--device", "cpu") == 0
    assert trained == [("mine-s0", 0, None), ("mine-s2", 2, None), ("mine-s1", 1, None)]
    printed = "".join(capsys.readouterr())
    assert "mine-s0" in printed
    assert "mine-s2" in printed


def test_a_later_seeds_name_that_is_taken_ends_the_command_before_any_training(monkeypatch, capsys, trained, tmp_path):
    monkeypatch.chdir(tmp_path)
    taken = tmp_path / "runs" / "mine-s1"
    taken.mkdir(parents=True)
    (taken / "config.json").write_text("{}")
    assert run(monkeypatch, "train", "cifar100", "--seeds", "0,1", "--name", "mine", "--device", "cpu") == 2
    assert trained == []
    assert "mine-s1" in "".join(capsys.readouterr())
    assert sorted(path.name for path in taken.parent.iterdir()) == ["mine-s1"]  # nothing else was made


def test_an_interrupted_seed_ends_the_command_and_names_the_next_one(monkeypatch, capsys, trained):
    words = ["train", "cifar100", "--seeds", "0,7,1", "--resume", "auto", "--device", "cpu"]
    assert run(monkeypatch, *words) == 1
    assert [(name, resume) for name, _, resume in trained] == [
        ("cifar100-resnet18-none-s0", "auto"),
        ("cifar100-resnet18-none-s7", "auto"),
    ]
    assert "this command with --resume auto continues at seed 7" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seeds", "0,x"), "--seeds is 0,x: give whole numbers joined by commas, such as 0,1,2."),
        (("--seeds", "1,1"), "--seeds is 1,1: it names one seed twice."),
        (("--seeds", "0,-1"), "--seed is -1: give at least 0"),
        (("--seeds", "0,1", "--seed", "3"), "--seeds 0,1 and --seed 3 contradict each other"),
        (("--seeds", "0,1", "--resume", "runs/x"), "--seeds 0,1 and --resume runs/x contradict each other"),
    ],
)
def test_bad_seeds_are_refused(monkeypatch, capsys, trained, words, message):
    assert run(monkeypatch, "train", "cifar100", "--device", "cpu", *words) == 2
    assert message in capsys.readouterr().err
    assert trained == []


def test_runs_of_seeds_differ_in_seed_and_name_alone():
    config, _ = make_config("cifar100", gpu=False, reg="cutmix", ls=0.1)
    one, two = of_seeds(config, parse_seeds("3,4"))
    assert (one.name, two.name) == ("cifar100-resnet18-cutmix-ls0.1-s3", "cifar100-resnet18-cutmix-ls0.1-s4")
    assert {key for key, value in vars(one).items() if vars(two)[key] != value} == {"seed", "name"}


@pytest.fixture
def evaluated(monkeypatch, tmp_path):
    calls = []

    def evaluate(checkpoint, suites, **given):
        calls.append((checkpoint, suites, given))
        failures = {
            "missing": InputError("no checkpoint: give `data`."),
            "broken": RunError("an image cannot be read."),
        }
        if (error := failures.get(str(checkpoint))) is not None:
            raise error
        if str(checkpoint) == "odd":
            raise RuntimeError("something else")
        return SimpleNamespace(), tmp_path / str(checkpoint)

    monkeypatch.setattr(fastreg.evaluation.from_checkpoint, "run", evaluate)
    monkeypatch.setattr(fastreg.report, "print_scorecard", lambda *_, **__: None)
    return calls


def test_several_runs_are_evaluated_one_after_another(monkeypatch, capsys, evaluated, tmp_path):
    assert run(monkeypatch, "eval", "a", "b", "--suite", "clean,fgsm", "--seed", "3") == 0
    assert [str(checkpoint) for checkpoint, _, _ in evaluated] == ["a", "b"]
    assert all(suites == "clean,fgsm" and given["seed"] == 3 for _, suites, given in evaluated)
    assert f"2 of 2 runs evaluated; next: fastreg report {tmp_path / 'a'} {tmp_path / 'b'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "code"),
    [(("a", "missing", "b"), 2), (("broken", "a", "b"), 1), (("odd", "a", "missing", "b"), 2), (("a", "odd", "b"), 1)],
)
def test_a_run_that_fails_does_not_lose_the_others(monkeypatch, capsys, evaluated, names, code):
    assert run(monkeypatch, "eval", *names) == code
    assert [str(checkpoint) for checkpoint, _, _ in evaluated] == list(names)
    out, err = capsys.readouterr()
    assert f"2 of {len(names)} runs evaluated" in out
    sentences = {
        "missing": "fastreg: missing: no checkpoint: give --data.",
        "broken": "fastreg: broken: an image cannot be read.",
        "odd": "fastreg: odd: unexpected RuntimeError: something else",
    }
    for name, sentence in sentences.items():
        assert (sentence in err) == (name in names)


def test_one_run_ends_as_before(monkeypatch, capsys, evaluated):
    assert run(monkeypatch, "eval", "a") == 0
    assert "scorecard: " in capsys.readouterr().out
    assert run(monkeypatch, "eval") == 0
    assert evaluated[-1][0] is None
    assert run(monkeypatch, "eval", "missing") == 2
    assert capsys.readouterr().err == "fastreg: no checkpoint: give --data.\n"
    assert run(monkeypatch, "eval", "a", "b", "--out", "o") == 2
    assert "--out o is for the scorecard of one model, and 2 runs are given." in capsys.readouterr().err
