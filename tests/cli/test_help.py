"""The help: quick, in the order of the work; completion; the list of recipes."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from fastreg.cli import COMMANDS, load_commands
from fastreg.pipelines import DATASETS
from fastreg.recipes import ALL
from tests.support import ROOT, environment, fastreg


def test_help_imports_little():
    """The command starts as fast as its imports: none of the heavy packages, and few modules in all."""
    code = (
        "import sys; sys.argv = ['fastreg', '--help']\n"
        "from fastreg.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = ('torch', 'triton', 'numpy', 'matplotlib', 'cv2', 'PIL', 'simplejpeg', 'jinja2', 'pooch')\n"
        "print([m for m in heavy if m in sys.modules])\n"
        "print(len(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    *text, heavy, count = done.stdout.splitlines()
    assert "train" in "\n".join(text)
    assert heavy == "[]"
    assert int(count) < 450  # 343 with typer 0.29


def test_the_help_lists_the_commands_in_the_order_of_the_work(call):
    _, out, _ = call("--help")
    listed = re.findall(r"^│ (\w+) ", out.partition("Commands")[2], re.MULTILINE)
    assert listed == list(COMMANDS)


def all_commands(command, path=()):
    """Every command of the line with its words, groups too."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from all_commands(below, (*path, name))


def test_no_type_stands_behind_a_flag_that_takes_no_value(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    flags = values = 0
    for path, command in all_commands(load_commands()):
        _, out, _ = call(*path, "-h")
        assert "<bool>" not in out, path
        for parameter in command.params:
            if parameter.param_type_name == "option":
                # the flag's own row, not one that mentions it
                row_of = re.compile(rf"│[* ]+(\S+,)?{re.escape(parameter.opts[-1])}[ ,]")
                (row,) = filter(row_of.match, out.splitlines())
                takes_value = not parameter.is_flag
                assert bool(re.search(r"<\w+>|\[.*\|", row)) == takes_value, row
                flags += not takes_value
                values += takes_value
    assert flags > 15
    assert values > 50


def test_completion_is_installed_and_completes(tmp_path):
    """bash stays the parent process, from which the kind of shell is read."""
    line = f"'{sys.executable}' -m fastreg --install-completion; exit $?"
    home = environment(HOME=str(tmp_path))
    done = subprocess.run(["bash", "-c", line], env=home, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    script = tmp_path / ".bash_completions" / "fastreg.sh"
    assert str(script) in (tmp_path / ".bashrc").read_text()
    assert "_FASTREG_COMPLETE=complete_bash" in script.read_text()
    for words, number, expected in (("fastreg tr", 1, ["train"]), ("fastreg data ver", 2, ["verify"])):
        more = {"_FASTREG_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        assert fastreg(**more).stdout.split() == expected


def test_recipes_are_listed_in_groups_and_one_with_all_its_settings(call):
    code, out, _ = call("recipes")
    assert code == 0
    groups = re.findall(r"^(\S+): ", out, re.MULTILINE)
    assert groups == list(dict.fromkeys(name.rpartition("/")[0] for name in ALL))
    for name in ALL:
        assert re.search(rf"(?<!\S){re.escape(name.rpartition('/')[2])}(?!\S)", out), name
    assert "alp (adam lr 0.001)" in out
    assert len(out.splitlines()) < len(ALL)

    code, out, _ = call("recipes", "paper/imagenet/cutmix")  # other names contain this one
    assert code == 0
    first, *settings = out.splitlines()
    assert first == "paper/imagenet/cutmix"
    assert {"reg cutmix", "lr 0.1", "milestones 0.25,0.5,0.75"} <= set(re.split(r"\s{2,}", " ".join(settings)))

    listed = json.loads(call("recipes", "imagenet/cutmix", "--json")[1])
    assert set(listed) == {name for name in ALL if "imagenet/cutmix" in name}


def test_the_help_of_train_names_every_data_set(call):
    _, out, _ = call("train", "--help")
    named = out.partition("Arguments")[2].partition("Options")[0]
    assert {*re.findall(r"\w+", named)} >= DATASETS.keys() - {"svhn"} | {"gan"}


@pytest.mark.parametrize("words", ["", "train", "show", "data"])
def test_no_arguments_print_the_help_alone(call, words):
    code, out, errors = call(*words.split())
    assert code == 2
    assert "Usage" in out + errors
    assert "fastreg: " not in errors
