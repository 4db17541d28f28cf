"""The training run: one loop for every method, precision, data set and number of ranks.

The loop never waits for the device in a step: losses are collected on the device and read later (loss_log.py). All
random numbers depend on (seed, sample, step) only, so a resumed run needs no generator's state.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch.distributed as dist

from fastreg import runs
from fastreg.distributed import World, init_distributed, raise_on_all_ranks
from fastreg.errors import InputError, SharedError
from fastreg.kernels import Batch
from fastreg.log import log
from fastreg.models.gray import gray_statistics
from fastreg.pipelines import Loader, Source
from fastreg.progress import Progress, progress
from fastreg.training import resume as resuming
from fastreg.training.checkpoint_writer import CheckpointWriter
from fastreg.training.config import Config
from fastreg.training.data import make_loaders, open_sets, skipped_images
from fastreg.training.initial_weights import Statistics, input_statistics
from fastreg.training.loss import class_weights
from fastreg.training.loss_log import LossBuffer
from fastreg.training.plot_curves import draw_curves
from fastreg.training.profiling import profiling
from fastreg.training.run_log import RunLog
from fastreg.training.schedule import train_size
from fastreg.training.setup import training_switches
from fastreg.training.signals import GracefulShutdown, stop_signals
from fastreg.training.train_step import TrainStep
from fastreg.training.validate import validate

_ERRORS = ("best", "best_epoch", "last")


def train(config: Config, *, resume: str | None = None, allow_changes: bool = False) -> Path:
    """Train a model and write a run folder: checkpoints, logs, settings and curves.

    Under torchrun every rank calls this function, and rank 0 writes the files.

    Args:
        config: settings of the run, usually from ``make_config``.
        resume: None starts a new run. "auto" continues the newest run of this name and these settings, and starts a
            new one if there is none. A path continues the run in that folder.
        allow_changes: continue with settings that differ from the run's. "auto" then takes the newest run of the name.

    Returns:
        The run folder.

    Raises:
        InputError: settings or data that cannot be used.
        RunError: the run stopped: a signal, a loss that is not finite, a full disk. Its last checkpoint is whole.
    """
    with contextlib.ExitStack() as run:
        world = run.enter_context(init_distributed(config.device))
        run.enter_context(training_switches(config, world.device))
        folder, checkpoint = run.enter_context(resuming.run_folder(config, resume, world, allow_changes))
        train_set, val_set = open_sets(config, world)
        with raise_on_all_ranks(world):
            mean, std = _statistics(config, train_set, checkpoint)
            weight = class_weights(config.class_weight, train_set)
        steps = config.epochs * (len(train_set) // resuming.global_batch(config, world.size))
        train_step = TrainStep(config, len(train_set.classes), mean, std, world, steps, weight)
        with raise_on_all_ranks(world):
            loader, val_loader = make_loaders(config, train_set, val_set, world, random_crop=train_step.method.crop)
        for opened in (val_loader, loader):
            run.enter_context(contextlib.closing(opened))
        used = {"precision_used": train_step.precision, "loader_used": loader.name, "n_train": len(train_set)}
        used |= {"torchcompile_used": train_step.compile_mode or "off", "device_used": world.device.type}
        used |= {"model_args": dict(train_step.model_args), "mean": list(mean), "std": list(std)}
        settings = resuming.describe(config, train_set, val_set, world, **used)
        trainer = Trainer(config, settings, train_step, loader, val_loader, folder, world)
        if checkpoint is None:
            train_step.begin(train_set)
        else:
            trainer.restore(checkpoint, allow_changes)
        if trainer.epochs_done >= config.epochs:
            log.info("%s is complete: %d epochs, %s", folder, config.epochs, trainer.result)
            return folder
        run.enter_context(trainer.open_log())
        run.enter_context(contextlib.closing(trainer.writer))
        trainer.stopping = run.enter_context(stop_signals(world))
        trainer.trace_step = run.enter_context(profiling(config.profile if world.rank == 0 else 0, folder))
        for epoch in range(trainer.epochs_done, config.epochs):
            trainer.train_epoch(epoch)
            trainer.validate_epoch(epoch)
            if trainer.epochs_done < config.epochs and trainer.stopping(wait=True):
                trainer.finish()
                raise trainer.stopped()
        trainer.finish()
        log.info("done: %s, in %s", trainer.result, folder)
    return folder


def _statistics(config: Config, train_set: Source, checkpoint: dict[str, Any] | None) -> Statistics:
    """Mean and std of the images: those of the run, or of its initial weights, or of the data."""
    if checkpoint is not None and "mean" in checkpoint.get("config", {}):
        return checkpoint["config"]["mean"], checkpoint["config"]["std"]
    mean, std = input_statistics(config) or (train_set.mean, train_set.std)
    return (gray_statistics(mean), gray_statistics(std)) if config.channels == 1 else (mean, std)


class Trainer:
    """The state of one run on one rank: how far it is, its best result, and its logs.

    Args:
        config: settings of the run.
        settings: the content of config.json.
        train_step: model, method and optimizer.
        loader: training batches.
        val_loader: validation batches.
        folder: the run folder.
        world: this rank.
    """

    stopping: GracefulShutdown
    trace_step: Callable[[], None]

    def __init__(
        self,
        config: Config,
        settings: dict[str, Any],
        train_step: TrainStep,
        loader: Loader,
        val_loader: Loader,
        folder: Path,
        world: World,
    ) -> None:
        self.config, self.settings, self.train_step = config, settings, train_step
        self.loader, self.val_loader, self.folder, self.world = loader, val_loader, folder, world
        self.per_epoch = loader.steps_per_epoch
        self.step = self.epochs_done = 0  # steps trained; epochs trained and validated
        self.best, self.best_epoch, self.last = math.inf, 0, math.inf  # top-1 errors in percent
        self.log, self.writer = RunLog(folder, world), CheckpointWriter()

    @property
    def position(self) -> int:
        """Progress in images: full epochs, and the images seen in the current one. Independent of the batch size."""
        epoch, step = divmod(self.step, self.per_epoch)
        return epoch * len(self.loader.source) + step * self.loader.global_batch

    @property
    def result(self) -> str:
        averaged = "" if self.train_step.ema is None else " of the averaged weights"
        best = f"best top-1 error{averaged} {self.best:.2f} % (epoch {self.best_epoch + 1})"
        return f"{best}, last {self.last:.2f} %"

    def restore(self, checkpoint: dict[str, Any], allow_changes: bool) -> None:
        """Continue from a checkpoint. Raises InputError if it does not fit the data, the settings or the batch."""
        if "optimizer" not in checkpoint:
            raise InputError(
                f"{self.folder / 'last.pt'} contains weights only, as best.pt does: put back the file that the run "
                "wrote, or start a new run with another `name`."
            )
        resuming.refuse_changes(checkpoint["config"], self.settings, self.folder, allow_changes)
        epoch, seen = divmod(checkpoint["position"], len(self.loader.source))
        if seen % self.loader.global_batch:
            raise InputError(
                f"{self.folder} stopped {seen} images into an epoch, between two steps of {self.loader.global_batch}: "
                f"resume with a global batch that divides it, such as {checkpoint['config']['global_batch']}."
            )
        self.step = epoch * self.per_epoch + seen // self.loader.global_batch
        self.epochs_done = checkpoint["ended"]
        self.best, self.best_epoch, self.last = (checkpoint[key] for key in _ERRORS)
        self.train_step.load(checkpoint)

    def open_log(self) -> contextlib.AbstractContextManager[None]:
        """Open the log at this run's progress, and log a summary of the run."""
        images, steps = f"{len(self.loader.source):,}", self.config.epochs * self.per_epoch
        resumed = f", continuing at step {self.step}" if self.step else ""
        log.info(
            "run %s: %s images, %d steps x %d epochs%s",
            self.folder,
            images,
            self.per_epoch,
            self.config.epochs,
            resumed,
        )
        decay = self.config.model_ema_decay
        if decay and not self.config.model_ema_warmup and steps * (1 - decay) < 1 and self.world.rank == 0:
            log.warning(
                "the average of the weights (model_ema_decay %g) spans about %s steps, and the run has %d: turn on "
                "model_ema_warmup, or lower model_ema_decay",
                decay,
                f"{1 / (1 - decay):,.0f}",
                steps,
            )
        return self.log.open(self.settings, self.position, self.epochs_done, self.step)

    def train_epoch(self, epoch: int) -> None:
        """Train the rest of an epoch: no steps if the run stopped between its last step and its validation."""
        config, global_batch = self.config, self.loader.global_batch
        if self.step >= (epoch + 1) * self.per_epoch:
            return
        self.loader.size = size = train_size(config, epoch)
        self.train_step.mixing = not 0 < config.mixup_off_epoch <= epoch
        self.train_step.net.train()
        losses = LossBuffer(config.log_interval, self.world, self.folder / "last.pt")
        first = self.step
        done = (self.step % self.per_epoch) * global_batch
        title = f"epoch {epoch + 1}/{config.epochs}"
        with progress(title, self.per_epoch * global_batch, done=done) as bar:
            batches = _timed(self.loader.batches(self.step * global_batch))
            self.train_step.expect(self.loader.coming, self.step, epoch, size)
            start = time.perf_counter()
            while self.step < (epoch + 1) * self.per_epoch:
                start = self.advance(epoch, batches, losses, start)
                self.trace_step()
                bar.advance(global_batch)
                if losses.full:
                    self.record(losses, bar)
                end = self.step % self.per_epoch == 0
                stop = self.stopping(wait=end)
                if stop or (not end and (self.step - first) % config.recovery_interval == 0):
                    self.check_finite(losses, bar, epoch)
                    self.save(epoch)
                    if stop:
                        self.finish()
                        raise self.stopped()
            next(batches, None)  # the loader frees the epoch's buffers
            self.check_finite(losses, bar, epoch)

    def advance(self, epoch: int, batches: Iterator[tuple[Batch, float]], losses: LossBuffer, start: float) -> float:
        """One step: its micro-batches, the update and its log row. Returns the time at its end."""
        config, waited = self.config, 0.0
        partial = self.loader.order.partial if (self.step + 1) % self.per_epoch == 0 else 0
        images = partial or self.loader.global_batch
        for micro in range(config.grad_accum_steps):
            batch, wait = next(batches)
            waited += wait
            weight = {"share": len(batch.labels) * self.world.size / partial} if partial else {}
            losses.add(self.train_step.forward_backward(batch, self.step, micro, self.loader.size, epoch, **weight))
        lr = self.train_step.update(self.step, config.epochs * self.per_epoch)
        self.step += 1
        now = time.perf_counter()
        seconds = now - start
        losses.end_step(
            {
                "step": self.step,
                "epoch": epoch,
                "position": self.position,
                "lr": lr,
                "images_per_second": round(images / seconds, 2),
                "data_wait": round(waited / seconds, 4),
            }
        )
        return now

    def check_finite(self, losses: LossBuffer, bar: Progress, epoch: int) -> None:
        """Before a checkpoint: log all losses. Raises RunError if a loss or a weight is not finite."""
        self.record(losses, bar, wait=True)
        if not self.train_step.finite():
            row = {"step": self.step, "epoch": epoch, "lr": self.train_step.optimizer.param_groups[0]["lr"]}
            self.writer.wait()
            raise losses.diverged("the weights are no longer finite", row)

    def record(self, losses: LossBuffer, bar: Progress, wait: bool = False) -> None:
        """Log the steps whose losses are ready. Raises RunError at the first loss that is not finite."""
        arrived = losses.flush(wait)
        rows = list(takewhile(lambda row: math.isfinite(row["loss"]), arrived))
        self.log.add_steps(rows)
        if rows:
            bar.advance(0, note=f"loss {rows[-1]['loss']:.3f}, data wait {100 * rows[-1]['data_wait']:.0f} %")
        if len(rows) < len(arrived):
            self.writer.wait()
            raise losses.diverged(f"the loss is {arrived[len(rows)]['loss']}", arrived[len(rows)])

    def validate_epoch(self, epoch: int) -> None:
        """Validate, log the epoch, and save the checkpoints."""
        start = time.perf_counter()
        step = self.train_step
        step.share_statistics()  # the saved statistics are validated
        row = {"epoch": epoch, "step": self.step, "train_loss": self.log.train_loss(epoch)}
        row |= validate(step.model, self.val_loader, step.mean, step.std, step.dtype)
        if step.ema is not None:
            averaged = validate(step.ema, self.val_loader, step.mean, step.std, step.dtype)
            row |= {f"ema_{key}": value for key, value in averaged.items()}
        if self.config.on_bad_image == "skip":
            row |= skipped_images(self.loader, self.world)
        row["seconds"] = round(time.perf_counter() - start, 2)
        self.last, self.epochs_done = runs.selection_error(row), epoch + 1
        better = self.last < self.best or (self.config.best_of_ties == "last" and self.last == self.best)
        if better:
            self.best, self.best_epoch = self.last, epoch
        self.log.add_epoch(row)
        best: dict[Path, dict[str, Any]] = {}
        if self.world.rank == 0:
            log.info("epoch %d: loss %.4f, %s", epoch + 1, row["train_loss"], _errors(row))
            if better:
                weights = (step.model if step.ema is None else step.ema).state_dict()
                weights = {key: value.contiguous() for key, value in weights.items()}  # safetensors takes no other
                facts: dict[str, Any] = {"weights": "model" if step.ema is None else "average"}
                facts |= {key: row[key] for key in row if key.endswith("_error")}
                best[self.folder / "best.pt"] = {**self._header(epoch), **facts, "model": weights}
        self.save(epoch, best)
        if self.world.rank == 0:
            draw_curves(self.folder)

    def save(self, epoch: int, others: Mapping[Path, dict[str, Any]] | None = None) -> None:
        """Start to write ``others`` and then last.pt on rank 0. Raises RunError if the write before failed."""
        self.train_step.share_statistics()
        if self.world.rank == 0:
            last = {**self._header(epoch), **self.train_step.state()}
            self.writer.write({**(others or {}), self.folder / "last.pt": last})

    def finish(self) -> None:
        """Wait until the checkpoints are written, on all ranks. Raises RunError if that failed."""
        self.writer.wait()
        if self.world.size > 1:
            dist.barrier()  # torchrun ends all ranks as soon as one has left

    def stopped(self) -> SharedError:
        command = resuming.command_to_continue(self.config.dataset, self.folder, self.world, self.config.model)
        return SharedError(f"stopped at step {self.step}; continue with: {command}")  # no full stop: it is copied

    def _header(self, epoch: int) -> dict[str, Any]:
        reached = {"step": self.step, "epoch": epoch, "position": self.position, "ended": self.epochs_done}
        return {"config": self.settings, **reached, **{key: getattr(self, key) for key in _ERRORS}}


def _errors(row: dict[str, Any]) -> str:
    """The errors of an epoch in words; top-5 only if there are five classes."""
    top1, *top5 = (f"val_top{k}_error" for k in (1, 5) if f"val_top{k}_error" in row)
    error = f"top-1 error {row[top1]:.2f} %"
    if f"ema_{top1}" not in row:
        return error + "".join(f", top-5 {row[key]:.2f} %" for key in top5)
    error = f"{error} of the model, {row[f'ema_{top1}']:.2f} % of its averaged weights"
    return error + "".join(f"; top-5 {row[key]:.2f} %, {row[f'ema_{key}']:.2f} %" for key in top5)


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that the loop waited for it."""
    while True:
        start = time.perf_counter()
        try:
            batch = next(batches)
        except StopIteration:
            return
        yield batch, time.perf_counter() - start
