"""Logs that are cut and summarized without reading them whole, and rows of any kind in them."""

from __future__ import annotations

import builtins
import json
import random

import pytest

from fastreg import log_files, runs
from fastreg.log_files import Log, lines_from_end, read_epochs
from fastreg.training import loss_curve
from fastreg.training.loss_curve import LossCurve, curve_of, read_curve
from fastreg.training.run_log import RunLog
from tests.fastreg.training.tiny_runs import ALONE


def step_row(step: int, per_epoch: int) -> dict:
    epoch = (step - 1) // per_epoch
    return {"step": step, "epoch": epoch, "position": 4 * step, "loss": 1 / step, "lr": 0.1 - step * 1e-6} | {
        "images_per_second": 10.5,
        "data_wait": 0.0,
    }


def write_log(folder, epochs: int, per_epoch: int) -> RunLog:
    log = RunLog(folder, ALONE)
    folder.mkdir(parents=True, exist_ok=True)
    log.rows.truncate(0, 0)
    for epoch in range(epochs):
        log.add_steps([step_row(epoch * per_epoch + k + 1, per_epoch) for k in range(per_epoch)])
        row = {"epoch": epoch, "step": (epoch + 1) * per_epoch, "train_loss": log.train_loss(epoch)}
        log.add_epoch({**row, "val_loss": 1.5, "val_top1_error": 50.0 - epoch, "seconds": 1.0})
    return log


@pytest.mark.parametrize("block", [7, 64, 1 << 16])
@pytest.mark.parametrize("content", ["", "a", "a\n", "\n\n", "one\ntwo\n\nthree", "x" * 300 + "\ny\n"])
def test_lines_from_the_end_are_the_lines_reversed(tmp_path, monkeypatch, content, block):
    monkeypatch.setattr(log_files, "BLOCK", block)
    (tmp_path / "f").write_text(content)
    found = list(lines_from_end(tmp_path / "f"))
    expected = content.encode().splitlines(keepends=True)
    assert [line for _, line in found] == expected[::-1]
    assert [offset for offset, _ in found] == [sum(map(len, expected[:k])) for k in range(len(expected))][::-1]


@pytest.mark.parametrize(
    ("position", "epochs"), [(0, 0), (4 * 7, 0), (4 * 10, 0), (4 * 10, 1), (4 * 25, 2), (4 * 40, 4)]
)
def test_a_cut_log_is_the_filtered_log(tmp_path, position, epochs):
    """Against the filter over all rows, written out here."""
    write_log(tmp_path, 4, 10)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"kind": "step", "step": 99, "posi')  # a kill
    rows = runs.read_rows(tmp_path / "log.jsonl")
    bounds = {"step": ("position", position), "epoch": ("epoch", epochs - 1)}
    expected = [row for row in rows if row[bounds[row["kind"]][0]] <= bounds[row["kind"]][1]]
    recent = Log(tmp_path).truncate(position, epochs, since=position)
    assert runs.read_rows(tmp_path / "log.jsonl") == expected
    assert (tmp_path / "log.jsonl").read_text() == "".join(json.dumps(row) + "\n" for row in expected)
    for kind, (path, columns) in Log(tmp_path).tables.items():
        lines = path.read_text().splitlines()
        own = [row for row in expected if row["kind"] == kind]
        assert lines == [",".join(columns), *(",".join(str(row.get(c, "")) for c in columns) for row in own)]
        path.unlink()
    Log(tmp_path).truncate(position, epochs)  # tables that are missing are made again
    assert all(path.read_text().count("\n") == 1 + sum(r["kind"] == k for r in expected)
               for k, (path, _) in Log(tmp_path).tables.items())  # fmt: skip
    assert [row["step"] for row in recent] == [
        r["step"] for r in expected if r["kind"] == "step" and r["epoch"] >= epochs
    ]


class Counted:
    """Counts the bytes that are read from log.jsonl."""

    def __init__(self, monkeypatch):
        self.bytes = 0
        original = builtins.open

        def counting(path, mode="r", *args, **more):
            file = original(path, mode, *args, **more)
            if str(path).endswith("log.jsonl") and "r" in mode and "b" in mode:
                read, readline = file.read, file.readline
                outer = self

                class Wrapped:
                    def __getattr__(self, name):
                        return getattr(file, name)

                    def __enter__(self):
                        return self

                    def __exit__(self, *error):
                        file.close()

                    def read(self, *size):
                        data = read(*size)
                        outer.bytes += len(data)
                        return data

                    def readline(self, *size):
                        data = readline(*size)
                        outer.bytes += len(data)
                        return data

                return Wrapped()
            return file

        monkeypatch.setattr(builtins, "open", counting)


def test_epoch_end_report_and_resume_read_no_more_of_a_longer_log(tmp_path, monkeypatch):
    """Bytes of the log that are read at the end of an epoch, by a report and by a resume."""
    monkeypatch.setattr(log_files, "BLOCK", 4096)
    read = {}
    for epochs in (3, 30):
        folder = tmp_path / str(epochs)
        log = write_log(folder, epochs, 200)
        with pytest.MonkeyPatch.context() as patch:
            counted = Counted(patch)
            log.add_steps([step_row(200 * epochs + 1, 200)])
            log.train_loss(epochs)
            log.curve.save(folder)
            curve_of(folder)
            read_epochs(folder)
            assert counted.bytes == 0
            again = RunLog(folder, ALONE)
            again.curve = read_curve(folder)
            since = again.curve.cut(4 * 200 * epochs)
            again.rows.truncate(4 * 200 * epochs, epochs, since)
            read[epochs] = counted.bytes
        assert len(read_curve(folder).points) <= 2 * loss_curve.LIMIT
    assert 0 < read[30] <= 1.2 * read[3]
    assert (tmp_path / "30" / "log.jsonl").stat().st_size > 8 * read[30]


def test_a_curve_after_a_kill_is_the_curve_of_the_whole_run(tmp_path, monkeypatch):
    monkeypatch.setattr(loss_curve, "LIMIT", 16)
    whole = LossCurve()
    for step in range(1, 401):
        whole.add(step_row(step, 100))
    log = write_log(tmp_path, 2, 100)
    log.add_steps([step_row(step, 100) for step in range(201, 290)])
    again = RunLog(tmp_path, ALONE)
    with again.open({}, position=4 * 250, epochs=2, step=250):
        assert again.train_loss(2) == sum(1 / s for s in range(201, 251)) / 50
        again.add_steps([step_row(step, 100) for step in range(251, 401)])
    assert (again.curve.every, again.curve.points) == (whole.every, whole.points)
    means = [row["loss"] for row in whole.rows()]
    assert len(means) <= 32
    every = whole.every
    assert means[3] == pytest.approx(sum(1 / s for s in range(3 * every + 1, 4 * every + 1)) / every)


def test_damaged_logs_and_tables_never_raise(tmp_path):
    """Random damage with kept seeds: rows that are left are rows, and a cut log can be written on."""
    log = write_log(tmp_path / "run", 3, 10)
    folder = tmp_path / "run"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    extra = [
        b"null\n",
        b"[]\n",
        b'{"kind": 3}\n',
        b'{"kind": "epoch", "epoch": "x"}\n',
        b'{"kind": "step"}\n',
        b"\xff\n",
    ]
    extra += [b'{"kind": "step", "step": null, "position": 1e400}\n', b"[" * 5000 + b"\n", b"1,x,3\n", b'"\n,,\n']
    for seed in range(60):
        rng = random.Random(seed)
        for name, content in whole.items():
            damaged = bytearray(content)
            for _ in range(rng.randint(0, 6)):
                at = rng.randrange(len(damaged))
                damaged[at : at + rng.randint(0, 40)] = rng.choice(
                    [rng.randbytes(rng.randint(0, 30)), rng.choice(extra)]
                )
            (folder / name).write_bytes(damaged)
        assert all(isinstance(row["epoch"], int) and row["val_top1_error"] is not None for row in read_epochs(folder))
        assert len(curve_of(folder).rows()) <= 4096
        again = RunLog(folder, ALONE)
        again.curve = read_curve(folder)
        log.rows.truncate(80, 2, again.curve.cut(80))
        runs.Log(folder).add("epoch", [{"epoch": 2, "step": 30, "val_top1_error": 1.0}])
