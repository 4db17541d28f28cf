"""Runs whose files have wrong types, damage or markup: left out by name or shown, and never the end of a report."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import time

import pytest
from rich.console import Console

from fastreg.errors import InputError
from fastreg.progress import progress
from fastreg.report import paper, print_scorecard, write_report
from fastreg.report.run_folder import load_run, load_runs
from fastreg.training.resume import choose_folder, settings_at
from tests.fastreg.report.make_runs import make_run
from tests.fastreg.training import tiny_runs as tiny

WRONG = [None, True, -1, 2**70, 1e308, "x", "<b>", "[/red]", [], {}, [[1]], {"a": 3}, [None], "9" * 5000]


def places(value, path=()):
    """The paths of all values in nested containers."""
    yield path
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in rows:
        yield from places(inner, (*path, key))


def replaced(value, path, by):
    if not path:
        return by
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = replaced(copied[path[0]], path[1:], by)
    return copied


@pytest.mark.slow
def test_values_of_wrong_types_never_stop_a_report_of_other_runs(tmp_path, monkeypatch):
    """One value of a scorecard or a config after another becomes something else; seeds are kept."""
    monkeypatch.setattr("fastreg.report.html._sheet", lambda run: {})  # needs images
    whole, broken = make_run(tmp_path, "whole"), make_run(tmp_path, "broken")
    shown = 0
    for file, every in (("scorecard.json", 67), ("config.json", 11)):
        good = (broken / file).read_text()
        content, rng = json.loads(good), random.Random(5)
        for number, path in enumerate(places(content)):
            if number % every:
                continue
            (broken / file).write_text(json.dumps(replaced(content, path, rng.choice(WRONG))))
            page = write_report([whole, broken], tmp_path / "r.html").read_text()
            assert "whole" in page
            shown += "broken" in page
        (broken / file).write_text(good)
    assert shown


def test_bytes_of_any_kind_never_stop_a_report_or_a_resume(tmp_path, monkeypatch):
    monkeypatch.setattr("fastreg.report.html._sheet", lambda run: {})
    whole, broken = make_run(tmp_path, "whole"), make_run(tmp_path, "broken")
    for file in ("scorecard.json", "config.json", "log.jsonl"):
        good = (broken / file).read_bytes()
        for seed in range(12):
            rng, content = random.Random(seed), bytearray(good)
            for _ in range(3):
                at = rng.randrange(len(content))
                content[at : at + rng.randint(0, 30)] = rng.randbytes(rng.randint(0, 30))
            (broken / file).write_bytes(content if seed else b"[" * 100_000)
            runs, sentences = load_runs([whole, broken])
            assert runs[0].name == "whole"
            assert all("\n" not in sentence and str(broken) in sentence for sentence in sentences)
            config = tiny.settings("none", tmp_path, tmp_path, name="broken")
            choose_folder(config, "auto")
            (broken / "last.pt").write_bytes(b"")
            with contextlib.suppress(InputError):
                settings_at(str(broken))
        (broken / file).write_bytes(good)
    assert write_report([whole, broken], tmp_path / "r.html").is_file()


@pytest.mark.slow
def test_pipes_and_deep_values_in_a_run_folder_are_refused(tmp_path, monkeypatch):
    """A pipe would be read for ever; values at a depth that JSON allows may be too deep for what follows."""
    monkeypatch.setattr("fastreg.report.html._sheet", lambda run: {})
    whole, broken = make_run(tmp_path, "whole"), make_run(tmp_path, "broken")
    for file in ("scorecard.json", "config.json", "log.jsonl", "epochs.csv", "curves.json"):
        good = (broken / file).read_bytes() if (broken / file).exists() else None
        (broken / file).unlink(missing_ok=True)
        os.mkfifo(broken / file)
        assert "whole" in write_report([whole, broken], tmp_path / "r.html").read_text()
        choose_folder(tiny.settings("none", tmp_path, tmp_path, name="broken"), "auto")
        (broken / file).unlink()
        if good is not None:
            (broken / file).write_bytes(good)
    for file in ("scorecard.json", "config.json"):
        good = (broken / file).read_text()
        for depth in (100, 200, 330, 450, 600, 800, 950):
            (broken / file).write_text(good.rstrip()[:-1] + ', "training": ' + "[" * depth + "]" * depth + "}")
            assert "whole" in write_report([whole, broken], tmp_path / "r.html").read_text()
        (broken / file).write_text(good)


NAME = '[/bold]<script>alert(1)</script>"&[red]x'


def test_names_are_text_in_every_output(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fastreg.report.html._sheet", lambda run: {})
    folder = make_run(tmp_path, "run")
    card = json.loads((folder / "scorecard.json").read_text())
    card["model"]["name"] = card["data"]["name"] = card["data"]["split"] = NAME
    (folder / "scorecard.json").write_text(json.dumps(card))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "model": NAME, "reg": NAME}))
    odd = tmp_path / NAME.replace("/", "")
    folder.rename(odd)
    page = write_report([odd], tmp_path / "r.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    run = load_run(odd)
    print_scorecard(run.card, "clean")
    paper("table4", tmp_path)
    flat = re.sub(r"\s|│", "", capsys.readouterr().out)
    assert NAME.replace(" ", "") in flat


def test_a_progress_bar_shows_names_as_text(monkeypatch):
    console = Console(record=True, width=120, force_terminal=True)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("RANK", "0")
    with progress(NAME, 10) as bar:
        bar.advance(3, note="[/x]")
        time.sleep(0.01)
    text = console.export_text()
    assert "[/bold]" in text
    assert "[/x]" in text


@pytest.mark.parametrize(("key", "value"), [("epochs", "x"), ("milestones", 3), ("reg_args", [1]), ("size_ramp", None)])
def test_a_wrong_type_in_the_config_of_a_resumed_run_is_one_sentence(tmp_path, key, value):
    from fastreg.training.run_config import continue_config

    run = {**tiny.settings("none", tmp_path, tmp_path).__dict__, "data_root": str(tmp_path), key: value}
    with pytest.raises(InputError, match=r"`?\w+`? ") as caught:
        continue_config("cifar100", run, gpu=False)
    assert "\n" not in str(caught.value)
