"""The training run: one loop for every method, precision, data set and number of processes.

A step is: bytes from the loader, one plan from the method, one ``augment`` launch, forward, loss, backward, update.
It never waits for the device: losses gather there and are read later (window.py). All random numbers come from
(seed, sample, step), so the one integer ``step`` is all that a resumed run needs beside the weights.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch.distributed as dist

from fastreg import files, runs
from fastreg.distributed import init_distributed, raise_on_all_ranks
from fastreg.environment import environment
from fastreg.errors import InputError, SharedError, extra
from fastreg.progress import progress
from fastreg.training import resume as resuming
from fastreg.training.config import Config
from fastreg.training.data import left_out, make_loaders, open_sets
from fastreg.training.loss_log import LossBuffer
from fastreg.training.plot_curves import draw_curves
from fastreg.training.profiling import profiling
from fastreg.training.schedule import train_size
from fastreg.training.signals import GracefulShutdown, stop_signals
from fastreg.training.train_step import TrainStep
from fastreg.training.validate import validate

_ERRORS = ("best", "best_epoch", "last")


def train(
    config: Config, *, resume: str | None = None, allow_changes: bool = False, say: Callable[[str], None] = print
) -> Path:
    """Train and return the run's folder.

    ``resume``: None starts a new run, "auto" continues the newest one of this name and these settings if there is one
    (with ``allow_changes`` the newest of this name), a path continues that run. Raises InputError (bad settings or
    data) or RunError (the run could not go on; its checkpoint is whole).
    """
    with init_distributed(config.device) as place, contextlib.ExitStack() as held:
        folder, resumed = resuming.run_folder(config, resume, place, allow_changes)
        with raise_on_all_ranks(place):
            sets = open_sets(config)
            if place.rank == 0:
                held.enter_context(files.lock(folder))
            checkpoint = runs.load_checkpoint(folder / "last.pt") if resumed else None
        Run(config, sets, folder, checkpoint, place, allow_changes, say if place.rank == 0 else _silent).go()
    return folder


class Run:
    """One run's objects: built in ``__init__``, trained by ``go``."""

    def __init__(self, config: Config, sets, folder: Path, checkpoint: dict[str, Any] | None, place, allow: bool, say):
        self.config, self.folder, self.place, self.say = config, folder, place, say
        self.device = place.device
        train_set, val_set = sets
        self.mean, self.std = train_set.mean, train_set.std

        self.engine = TrainStep(config, len(train_set.classes), self.mean, self.std, place)
        self.model, self.ema, self.dtype = self.engine.model, self.engine.ema, self.engine.dtype
        crop = self.engine.method.crop
        with raise_on_all_ranks(place):
            self.loader, self.val_loader = make_loaders(config, train_set, val_set, place, crop, say)

        used = {"precision_used": self.engine.precision, "loader_used": self.loader.name, "n_train": len(train_set)}
        used |= {"model_args": dict(self.engine.model_args)}
        self.resolved = resuming.describe(config, train_set, val_set, place, **used)
        self.per_epoch = self.loader.steps_per_epoch
        self.steps = config.epochs * self.per_epoch
        self.step = self.ended = 0  # ended: epochs that are trained and validated
        self.best, self.best_epoch, self.last = math.inf, 0, math.inf  # top-1 errors
        self.log = runs.Log(folder)
        if checkpoint is not None:
            self._restore(checkpoint, allow)
        else:
            self.engine.begin(train_set)
        self.board = tensorboard(folder, self.step + 1) if config.log_tensorboard and place.rank == 0 else None

    @property
    def position(self) -> int:
        """How far the run is, in images: whole passes over the training set, and what of the current one is seen.

        It does not depend on the batch, as the step does.
        """
        epoch, step = divmod(self.step, self.per_epoch)
        return epoch * len(self.loader.source) + step * self.loader.global_batch

    def go(self) -> None:
        config = self.config
        if self.ended >= config.epochs:
            self.say(f"{self.folder} is complete: {config.epochs} epochs, {self.result}")
            return
        if self.place.rank == 0:
            files.write_json(self.folder / "config.json", self.resolved)
            files.write_json(self.folder / "environment.json", environment())
            self.log.truncate(self.position, self.ended)
        self.say(
            f"run {self.folder}: {len(self.loader.source):,} images, {self.per_epoch} steps x {config.epochs} epochs"
            + (f", continuing at step {self.step}" if self.step else "")
        )
        traced = config.profile if self.place.rank == 0 else 0
        with (
            stop_signals(self.place) as stopping,
            profiling(traced, self.folder, self.say) as self.traced,
            contextlib.closing(self.loader),
            contextlib.closing(self.val_loader),
        ):
            for epoch in range(self.ended, config.epochs):
                if self.step < (epoch + 1) * self.per_epoch:  # else it was stopped before its validation
                    self.train_epoch(epoch, stopping)
                self.end_epoch(epoch)
                if stopping(wait=True) and self.ended < config.epochs:
                    raise self.stopped()
        self.say(f"done: {self.result}, in {self.folder}")

    @property
    def result(self) -> str:
        return f"best top-1 error {self.best:.2f} % (epoch {self.best_epoch + 1}), last {self.last:.2f} %"

    def train_epoch(self, epoch: int, stopping: GracefulShutdown) -> None:
        config, accumulate = self.config, self.config.grad_accum_steps
        self.loader.size = train_size(config, epoch)
        self.engine.mixing = not 0 < config.mixup_off_epoch <= epoch
        self.engine.net.train()
        window = LossBuffer(config.log_interval, self.place, self.folder / "last.pt")
        first = self.step
        micro = 0
        done = (self.step % self.per_epoch) * self.loader.global_batch
        total = self.per_epoch * self.loader.global_batch
        title = f"epoch {epoch + 1}/{config.epochs}"
        with progress(title, total, done=done) as bar:
            start, waited = time.perf_counter(), 0.0
            for batch, wait in _timed(self.loader.batches(self.step * self.loader.global_batch)):
                waited += wait
                window.add(self.engine.forward_backward(batch, self.step, micro, self.loader.size, epoch))
                micro += 1
                if micro < accumulate:
                    continue
                lr = self.engine.update(self.step, self.steps)
                micro = 0
                self.step += 1
                now = time.perf_counter()
                seconds = now - start
                window.close_step(
                    {
                        "step": self.step,
                        "epoch": epoch,
                        "position": self.position,
                        "lr": lr,
                        "images_per_second": round(self.loader.global_batch / seconds, 2),
                        "data_wait": round(waited / seconds, 4),
                    }
                )
                start, waited = now, 0.0
                self.traced()
                bar.advance(self.loader.global_batch)
                if window.full:
                    self.record(window, bar)
                end = self.step % self.per_epoch == 0
                stop = stopping(wait=end)
                if stop or (not end and (self.step - first) % config.recovery_interval == 0):
                    self.settle(window, bar, epoch)
                    self.save(epoch)
                    if stop:
                        raise self.stopped()
            self.settle(window, bar, epoch)

    def stopped(self) -> SharedError:
        command = resuming.command_to_continue(self.config.dataset, self.folder, self.place)
        return SharedError(f"stopped at step {self.step}; continue with: {command}")  # no full stop, to be copied

    def settle(self, window: LossBuffer, bar: Any, epoch: int) -> None:
        """Before a checkpoint: read every loss, and refuse weights that are not finite, whose loss is yet to come."""
        self.record(window, bar, wait=True)
        if not self.engine.finite():
            row = {"step": self.step, "epoch": epoch, "lr": self.engine.optimizer.param_groups[0]["lr"]}
            raise window.diverged("the weights are no longer finite", row)

    def end_epoch(self, epoch: int) -> None:
        start = time.perf_counter()
        self.engine.share_statistics()  # what is validated is what is saved
        row = {"epoch": epoch, "step": self.step, "train_loss": self._train_loss(epoch)}
        row |= validate(self.model, self.val_loader, self.mean, self.std, self.dtype)
        if self.ema is not None:
            averaged = validate(self.ema, self.val_loader, self.mean, self.std, self.dtype)
            row |= {f"ema_{key}": value for key, value in averaged.items()}
        if self.config.on_bad_image == "skip":
            row |= left_out(self.loader, self.place, self.say)
        row["seconds"] = round(time.perf_counter() - start, 2)
        self.last, self.ended = runs.judged(row), epoch + 1
        self.say(f"epoch {epoch + 1}: loss {row['train_loss']:.4f}, top-1 error {self.last:.2f} %")
        better = self.last < self.best
        if better:
            self.best, self.best_epoch = self.last, epoch
        if self.place.rank == 0:
            self.log.add("epoch", [row])
            self.scalars(row, [key for key in row if "loss" in key or "error" in key])
            if better:
                kept = self.ema if self.ema is not None else self.model
                runs.save_checkpoint(self.folder / "best.pt", {**self._header(epoch), "model": kept.state_dict()})
        self.save(epoch)
        if self.place.rank == 0:
            draw_curves(self.folder)

    def record(self, window: LossBuffer, bar: Any, wait: bool = False) -> None:
        """Log the steps whose losses have arrived. Raises RunError at the first that is not finite."""
        arrived = window.flush(wait)
        rows = list(takewhile(lambda row: math.isfinite(row["loss"]), arrived))
        if rows and self.place.rank == 0:
            self.log.add("step", rows)
            for row in rows:
                self.scalars(row, ("loss", "lr", "images_per_second", "data_wait"))
            bar.advance(0, note=f"loss {rows[-1]['loss']:.3f}, data wait {100 * rows[-1]['data_wait']:.0f} %")
        if len(rows) < len(arrived):
            raise window.diverged(f"the loss is {arrived[len(rows)]['loss']}", arrived[len(rows)])

    def scalars(self, row: dict[str, Any], keys: Sequence[str]) -> None:
        """Show figures of a log row in TensorBoard, where the run writes for it."""
        if self.board is not None:
            for key in keys:
                self.board.add_scalar(key, row[key], row["step"])

    def save(self, epoch: int) -> None:
        self.engine.share_statistics()
        if self.place.rank == 0:
            runs.save_checkpoint(self.folder / "last.pt", {**self._header(epoch), **self.engine.state()})
        if self.place.size > 1:
            dist.barrier()  # torchrun ends all when one has left: nobody leaves before it is written

    def _header(self, epoch: int) -> dict[str, Any]:
        reached = {"step": self.step, "epoch": epoch, "position": self.position, "ended": self.ended}
        return {"config": self.resolved, **reached, **{key: getattr(self, key) for key in _ERRORS}}

    def _restore(self, checkpoint: dict[str, Any], allow: bool) -> None:
        if "optimizer" not in checkpoint:
            raise InputError(
                f"{self.folder / 'last.pt'} holds weights alone, as best.pt does: put back the one that the run wrote, "
                "or start a new run with --name."
            )
        resuming.refuse_changes(checkpoint["config"], self.resolved, self.folder, allow)
        epoch, seen = divmod(checkpoint["position"], len(self.loader.source))
        if seen % self.loader.global_batch:
            raise InputError(
                f"{self.folder} stopped {seen} images into an epoch, between two steps of {self.loader.global_batch}: "
                f"resume with a global batch that divides it, such as {checkpoint['config']['global_batch']}."
            )
        self.step = epoch * self.per_epoch + seen // self.loader.global_batch
        self.ended = checkpoint["ended"]
        self.best, self.best_epoch, self.last = (checkpoint[key] for key in _ERRORS)
        self.engine.load(checkpoint)

    def _train_loss(self, epoch: int) -> float:
        """Mean of the epoch's logged losses, those before a resume included; on ranks that keep no log, nan."""
        rows = runs.read_rows(self.log.jsonl) if self.place.rank == 0 else []
        losses = [row["loss"] for row in rows if row["kind"] == "step" and row["epoch"] == epoch]
        return sum(losses) / len(losses) if losses else float("nan")


def tensorboard(folder: Path, first: int) -> Any:
    """A TensorBoard writer for the run's folder, in which what an earlier start wrote from step ``first`` on is void.

    Raises InputError when TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(f"--log-tensorboard needs TensorBoard: {extra('tensorboard')}.") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=first)


def _timed(batches: Iterator[Any]) -> Iterator[tuple[Any, float]]:
    """Each batch with the seconds that the loop waited for it."""
    while True:
        start = time.perf_counter()
        try:
            batch = next(batches)
        except StopIteration:
            return
        yield batch, time.perf_counter() - start


def _silent(line: str) -> None:
    """What ranks above 0 say."""
