"""``fastreg eval``: each option of an evaluation is a flag, and its value reaches the evaluation unchanged."""

import inspect
from pathlib import Path

import pytest

from fastreg.cli import main
from fastreg.cli.eval_options import FLAGS
from fastreg.errors import InputError
from fastreg.evaluation import from_checkpoint
from fastreg.evaluation.config import EvalConfig

# options without a flag, or that the command finds itself
NO_FLAG = {"classes", "name", "provenance"}


@pytest.fixture
def given(monkeypatch, capsys, tmp_path):
    """The arguments that ``fastreg eval WORDS`` would evaluate with, or its error."""

    def run(words):
        seen = []

        def note(*args, **options):
            seen.append((args, options))
            raise KeyboardInterrupt

        monkeypatch.setattr(from_checkpoint, "run", note)
        monkeypatch.setattr("sys.argv", ["fastreg", "eval", *words.split()])
        with pytest.raises(SystemExit):
            main()
        if not seen:
            raise InputError(capsys.readouterr().err)
        return seen[0]

    return run


def test_every_option_has_a_flag_and_every_flag_an_argument():
    flags = {name for rows in FLAGS.values() for name in rows}
    arguments = set(inspect.signature(from_checkpoint.run).parameters) - {"checkpoint", "suites", "options"}
    assert flags == (set(EvalConfig.__dataclass_fields__) - NO_FLAG) | arguments


def test_absent_flags_leave_the_defaults(given):
    assert given("") == ((None, "clean"), {})
    assert given("runs/mine --suite paper") == ((Path("runs/mine"), "paper"), {})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--epsilon 0.1 --no-clip", {"epsilon": 0.1, "clip": False}),
        ("--mean 0.5,0.4,0.3 --std 0.2", {"mean": [0.5, 0.4, 0.3], "std": [0.2]}),
        ("--mean none --std none", {"mean": None, "std": None}),
        ("--mean data", {"mean": "data"}),
        ("--torchcompile --precision auto", {"compiled": True, "precision": "auto"}),
        ("--img-size 64 --crop-pct 1", {"size": 64, "crop_pct": 1.0}),
        ("--corruption fog,frost --severities 1,3", {"corruptions": "fog,frost", "severities": "1,3"}),
        ("--odin-split --ood-dir o", {"odin_split": True, "ood_dir": Path("o")}),
        ("-b 8 -j 2 --seed 3", {"batch_size": 8, "workers": 2, "seed": 3}),
        (
            "--weights w.pth --model resnet18 --runs r",
            {"weights": Path("w.pth"), "model": "resnet18", "runs_root": Path("r")},
        ),
    ],
)
def test_flags_reach_the_evaluation(given, words, expected):
    assert given(words)[1] == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch-size 0", "--batch-size is 0: give 1 or more"),
        ("--epsilon 8", "--epsilon is 8, but pixels are in [0, 1]"),
        ("--precision int8", "unknown --precision 'int8'"),
        ("--mean 123,117,104 --std 58", "--mean holds 123, but pixels are in [0, 1]"),
        ("--mean none", "--mean is None but --std is 'data'"),
        ("--std imagenet", "--std is 'imagenet': give"),
        ("--fidelity jpeg", "unknown --fidelity 'jpeg'"),
        ("--suite imagnet-c", "did you mean 'imagenet-c'"),
    ],
)
def test_errors_name_the_flag(words, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fastreg", "eval", "nowhere.pt", *words.split()])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert message in capsys.readouterr().err
