"""Two runs never share a run folder; a resumed run finds its data from another folder."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from fastreg import files, runs
from fastreg.errors import InputError
from fastreg.training import Config, train, trainer
from fastreg.training.resume import claim_folder, settings_at
from fastreg.training.run_config import continue_config
from tests.fastreg.training.tiny_runs import Stopped, settings, stop_at

FORK = multiprocessing.get_context("fork")


def at_once(count: int, work) -> list:
    """The results of ``work(number, barrier)`` in ``count`` processes."""
    barrier, results = FORK.Barrier(count), FORK.Queue()

    def process(number: int) -> None:
        try:
            results.put(work(number, barrier))
        except BaseException as error:
            results.put(error)

    processes = [FORK.Process(target=process, args=(number,)) for number in range(count)]
    for one in processes:
        one.start()
    found = [results.get(timeout=60) for _ in processes]
    for one in processes:
        one.join(60)
    return found


@pytest.mark.parametrize("resume", [None, "auto"])
def test_three_seeds_started_at_once_have_a_folder_each(resume, tmp_path):
    def start(seed: int, barrier) -> str:
        config = Config("cifar100", output=str(tmp_path / "runs"), seed=seed)
        barrier.wait(60)
        with claim_folder(config, resume) as (folder, resumed):
            barrier.wait(60)  # all of them have one
            assert not resumed
            (folder / "config.json").write_text("{}")
        return folder.name

    base = "cifar100-resnet50-none"
    assert sorted(at_once(3, start)) == [base, f"{base}-2", f"{base}-3"]


def test_of_three_runs_with_one_name_one_gets_the_folder(tmp_path):
    def start(seed: int, barrier) -> str:
        config = Config("cifar100", output=str(tmp_path), name="mine", seed=seed)
        barrier.wait(60)
        try:
            with claim_folder(config, None) as (folder, _):
                barrier.wait(60)
                return folder.name
        except InputError as error:
            barrier.wait(60)
            return str(error)

    found = at_once(3, start)
    assert found.count("mine") == 1
    message = f"{tmp_path / 'mine'} is in use by another run: wait for it, or give another `name`."
    assert found.count(message) == 2


def test_runs_that_fail_before_they_write_disturb_no_other(tmp_path):
    """Each run removes the folders that it created, while others claim the same folder."""

    def start(number: int, barrier) -> int:
        barrier.wait(60)
        locked = 0
        for _ in range(200):
            try:
                with files.lock(tmp_path / "runs" / "mine"):
                    locked += 1
                    assert (tmp_path / "runs" / "mine" / ".lock").exists()
            except files.InUseError:
                continue
        return locked

    found = at_once(3, start)
    assert all(isinstance(locked, int) for locked in found), found
    assert sum(found) > 0
    assert not (tmp_path / "runs" / "mine").exists()


def test_a_run_that_writes_nothing_leaves_no_folder(tmp_path):
    with files.lock(tmp_path / "new" / "runs" / "mine"):
        assert (tmp_path / "new" / "runs" / "mine").is_dir()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("resume", [None, "auto"])
def test_a_run_that_another_process_finishes_before_the_lock_is_kept(resume, tmp_path, monkeypatch):
    config = Config("cifar100", output=str(tmp_path), seed=1)
    lock = files.lock

    def late(folder, *given):
        monkeypatch.setattr(files, "lock", lock)
        folder.mkdir()
        for name in ("config.json", "last.pt"):
            (folder / name).write_text("{}")
        return lock(folder, *given)

    monkeypatch.setattr(files, "lock", late)
    with claim_folder(config, resume) as (folder, resumed):
        base = "cifar100-resnet50-none"
        assert (folder.name, resumed) == ((base, True) if resume else (f"{base}-2", False))


def test_a_name_is_locked_while_its_first_run_reads_the_data(quick, data, tmp_path):
    """A second run must not continue the first one, even if the first has finished in the meantime."""
    errors = []

    def slow(config, world, open_sets=trainer.open_sets):
        with quick.context() as patch:
            patch.setattr(trainer, "open_sets", open_sets)
            with pytest.raises(InputError) as error:
                train(settings("none", tmp_path, data))
        errors.append(str(error.value))
        return open_sets(config, world)

    quick.setattr(trainer, "open_sets", slow)
    folder = train(settings("none", tmp_path, data))
    assert "is in use by another run" in errors[0]
    assert len([row for row in runs.read_rows(folder / "log.jsonl") if row["kind"] == "step"]) == 4


@pytest.fixture
def stopped(quick, data, tmp_path) -> Path:
    """A stopped run whose data folder was given relative to ``tmp_path``."""
    (tmp_path / "cifar").symlink_to(data / "cifar100")
    quick.chdir(tmp_path)
    with quick.context() as patch:
        patch.setattr(trainer.TrainStep, "update", stop_at(3))
        with pytest.raises(Stopped):
            train(settings("none", tmp_path, data, data_dir="cifar"))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data_root"] == str(tmp_path / "cifar")
    return tmp_path / "run"


def test_a_run_resumes_from_another_folder(stopped, quick, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    quick.chdir(tmp_path / "elsewhere")
    quick.delenv("FASTREG_DATA")
    config, _ = continue_config("cifar100", settings_at(str(stopped)), gpu=False)
    assert config.data_dir == str(tmp_path / "cifar")
    assert train(config, resume=str(stopped)) == stopped
    assert runs.load_checkpoint(stopped / "last.pt")["step"] == 4


def test_a_run_with_missing_data_names_its_own_folder(stopped, tmp_path):
    (tmp_path / "cifar").unlink()
    message = rf"the run's own data folder cifar \({tmp_path}/cifar\) does not exist: set `data_dir`\."
    with pytest.raises(InputError, match=message):
        continue_config("cifar100", settings_at(str(stopped)), gpu=False)
    assert continue_config("cifar100", settings_at(str(stopped)), gpu=False, data_dir="x")[0].data_dir == "x"


@pytest.mark.parametrize(
    ("given", "there", "expected"),
    [
        ("cifar", ["work/cifar"], "cifar"),
        ("cifar", ["work/cifar", "home/cifar"], "{home}/cifar"),
        ("cifar", ["home/cifar"], "{home}/cifar"),
        (None, ["home/cifar"], "{home}/cifar"),
        (None, [], None),
        ("s3://bucket/{{0..3}}.tar", [], "s3://bucket/{{0..3}}.tar"),
    ],
)
def test_stored_data_folders(given, there, expected, tmp_path, monkeypatch):
    """The run was started in "home"; the current folder is "work"."""
    for place in (*there, "work/", "home/"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / "work")
    home = tmp_path / "home"
    stored = {"dataset": "cifar100", "data_dir": given and given.format(), "data_root": str(home / "cifar")}
    if given and "://" in given:
        stored["data_root"] = stored["data_dir"]
    assert runs.stored_data_dir(stored) == (expected and expected.format(home=home))
    del stored["data_root"]
    assert runs.stored_data_dir({**stored, "data_dir": None}) is None
