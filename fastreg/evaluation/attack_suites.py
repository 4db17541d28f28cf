"""The suites of attacks: FGSM, PGD and AutoAttack; their settings, notes and the store of finished images."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.errors import InputError
from fastreg.evaluation import conditions
from fastreg.evaluation.attacks import AutoAttack, need_torchattacks, pgd_attack
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.config import EPSILON, EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.pixel_cache import Pixels
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Condition, LeftOut, SuitePlan
from fastreg.files import atomic_write

STEPS = {"fgsm": 1, "pgd": 10}  # of the paper's attacks
# option of an evaluation -> its value for the paper's PGD; the card keeps those that differ
PGD = {
    "attack_norm": "linf",
    "attack_step_size": None,
    "attack_restarts": 1,
    "attack_target": None,
    "attack_samples": 1,
}


def fgsm(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """One signed step.

    Raises LeftOut for an epsilon above 1, which only L2 balls can have.
    """
    if config.epsilon > 1:
        raise LeftOut(f"`epsilon` is {config.epsilon:g}, but fgsm moves each pixel by it: leave the suite fgsm out.")
    settings: dict[str, Any] = {"epsilon": config.epsilon, "clip": config.clip, "steps": STEPS["fgsm"]}
    return SuitePlan(settings, {"fgsm": _condition(conditions.Attack(**settings))})


def pgd(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """Projected gradient descent."""
    own = {name.removeprefix("attack_"): getattr(config, name) for name in PGD if getattr(config, name) != PGD[name]}
    settings = {"epsilon": config.epsilon, "clip": config.clip, "steps": config.attack_steps, **own}
    run = _PGD(seed=config.seed, **{"norm": config.attack_norm, **settings})
    return SuitePlan(settings, {"pgd": _condition(run, unbounded_left=lambda: run.left)})


class _PGD(conditions.Attack):
    """PGD, which tries an attack without bound on the first batch too.

    ``left``: the images of that batch which keep their label although every pixel may change by 1. A gradient that is
    of use misleads a model on all of them.
    """

    left: Tensor | int = 0
    tried = False

    def __call__(self, classifier: Classifier, batch: Pixels) -> Tensor:
        logits = super().__call__(classifier, batch)
        if not self.tried:
            self.tried, pad = True, classifier.padded
            images, labels = pad(conditions.float_pixels(batch.images)), pad(batch.labels)
            given: dict[str, Any] = {"epsilon": 1.0, "steps": STEPS["pgd"], "seed": self.seed}
            moved = pgd_attack(classifier.module, images, labels, indices=pad(batch.indices), **given)
            self.left = (classifier.pixels(moved).argmax(1) == labels)[: len(batch.labels)].sum()
        return logits


def _condition(run: conditions.Attack, **counts: Callable[[], Tensor | int]) -> Condition:
    return Condition(run, gradient=True, counts={"zero_gradient": lambda: run.unmoved, **counts})


def altered(card: ScorecardData, suite: str) -> list[str]:
    """Departures from the paper's attacks."""
    settings, steps = card.suite_settings(suite), STEPS.get(suite)
    messages = []
    if settings.get("epsilon", EPSILON) != EPSILON:
        messages.append(f"epsilon {settings['epsilon']:.4g} instead of 8/255")
    if settings.get("clip") is False:
        messages.append("pixels are not clipped to [0, 1]")
    if settings.get("steps", steps) != steps:
        messages.append(f"{settings['steps']} steps instead of {steps}")
    words = {"norm": "norm {}", "step_size": "steps of {:.4g}", "restarts": "{} random starts", "target": "target {}"}
    words["samples"] = "gradients averaged over {} passes"
    other = {name for name in words if name in settings and settings[name] != PGD[f"attack_{name}"]}
    return messages + [text.format(settings[name]) for name, text in words.items() if name in other]


def autoattack(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """AutoAttack, which continues at the image at which it was interrupted.

    Raises InputError if torchattacks is not installed, or for pixels outside [0, 1], which its attacks always clip.
    """
    need_torchattacks()
    if not config.clip:
        raise InputError("autoattack always keeps pixels in [0, 1]: leave out `clip`, or the suite.")
    settings = {"epsilon": config.epsilon, "norm": config.attack_norm, "version": "standard"}
    out = None if config.out is None else Path(config.out) / "autoattack"
    run = _AutoAttackRun(settings, config.seed, out, {**eval_data.describe(), "loader": config.loader})
    counts = {f"broken_{name}": partial(run.counts.__getitem__, name) for name in run.counts}
    return SuitePlan(settings, {"autoattack": Condition(run, gradient=True, counts=counts, finish=run.finish)})


class _AutoAttackRun:
    """Function from a batch to logits of its attacked images.

    Each finished batch is a file in a folder of ``root``, so that an interrupted evaluation goes on with the images
    that are in no file, also with another batch size or number of ranks. Every rank reads all files; the counts of a
    file belong to the rank whose batches have the file's first image.
    """

    def __init__(self, settings: Mapping[str, Any], seed: int, root: Path | None, data: Mapping[str, Any]):
        self.settings, self.seed, self.root, self.data = settings, seed, root, data
        self.folder: Path | None = None
        self.attack: AutoAttack | None = None
        self.done: dict[int, np.ndarray] = {}
        self.stored: dict[int, list[int]] = {}  # first image of a file -> its counts
        self.counts = dict.fromkeys(AutoAttack.NAMES, 0)

    def __call__(self, classifier: Classifier, batch: Pixels) -> Tensor:
        if self.attack is None:
            classes = classifier.images(batch.images[:1]).shape[1]
            given = {"epsilon": self.settings["epsilon"], "norm": self.settings["norm"], "seed": self.seed}
            self.attack = AutoAttack(classifier.module, classes, **given)
            self._open(classifier)
        indices = batch.indices.tolist()
        for index in indices:
            self._count(self.stored.pop(index, []))
        left = torch.tensor(
            [k for k, index in enumerate(indices) if index not in self.done], device=batch.images.device
        )
        if len(left):
            before = dict(self.attack.broken)
            images = conditions.float_pixels(batch.images[left])
            logits = classifier.pixels(self.attack(images, batch.labels[left])).cpu().numpy()
            broken = [self.attack.broken[name] - before[name] for name in before]
            self._keep([indices[k] for k in left.tolist()], logits, broken)
        return torch.from_numpy(np.stack([self.done[index] for index in indices])).to(batch.images.device)

    def _open(self, classifier: Classifier) -> None:
        """Read the files of an earlier run with this model, its normalization, precision and outputs, on this data."""
        if self.root is None:
            return
        columns = None if classifier.module.columns is None else classifier.module.columns.tolist()
        measured = [classifier.digest, classifier.mean, classifier.std, classifier.precision, columns]
        key = json.dumps([measured, self.data, self.settings, self.seed], sort_keys=True, default=str)
        self.folder = self.root / hashlib.sha256(key.encode()).hexdigest()[:12]
        for file in sorted(self.folder.glob("*.npz")):
            try:
                with np.load(file, allow_pickle=False) as stored:
                    indices, logits, broken = (stored[name] for name in ("indices", "logits", "broken"))
                self.stored[int(indices[0])] = broken.tolist()
                self.done.update(zip(indices.tolist(), logits))
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                file.unlink(missing_ok=True)  # cut short: its images are attacked again

    def _count(self, broken: Sequence[int]) -> None:
        for name, count in zip(AutoAttack.NAMES, broken):
            self.counts[name] += count

    def _keep(self, indices: list[int], logits: np.ndarray, broken: Sequence[int]) -> None:
        self.done.update(zip(indices, logits))
        self._count(broken)
        if self.folder is not None:
            buffer = io.BytesIO()
            np.savez(buffer, indices=indices, logits=logits, broken=broken)
            atomic_write(self.folder / f"{indices[0]:09d}.npz", buffer.getvalue())

    def finish(self) -> None:
        """Remove the files, as the card has the figures, but not those of other settings."""
        if self.root is not None and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # not empty
                self.root.rmdir()


def notes(card: ScorecardData, suite: str, weaker: str = "") -> list[str]:
    """Images without a gradient, and signs of masked gradients.

    One step finds more than many, an attack without bound does not mislead the model everywhere, or an attack without
    gradients finds more than those with: Athalye, Carlini and Wagner 2018 (1802.00420), section 3.1.

    Args:
        card: the whole card.
        suite: its name.
        weaker: a suite whose attack is weaker in the same ball.
    """
    row = card.results(suite).get(suite, {})
    messages = []
    if row.get("zero_gradient"):
        messages.append(
            f"{suite}: the gradient of {row['zero_gradient']:,} of {row['n']:,} images is zero, so that they were not "
            f"attacked; their errors do not measure robustness."
        )
    other = card.results(weaker).get(weaker, {})
    balls = [[card.suite_settings(name).get(key) for key in ("epsilon", "clip", "norm")] for name in (suite, weaker)]
    if balls[0] == balls[1] and "error" in other and row.get("error", 100.0) < other["error"]:
        messages.append(
            f"{suite} finds fewer errors ({row['error']:.2f} %) than {weaker} ({other['error']:.2f} %), a single "
            f"step: a sign of masked gradients."
        )
    if left := row.get("unbounded_left"):
        messages.append(
            f"{suite}: {left} images of the first batch keep their class although every pixel may take any value: a "
            f"sign of masked gradients."
        )
    if found := row.get("broken_square"):
        messages.append(
            f"Square, which uses no gradient, misleads the model on {found} images on which three gradient attacks did "
            f"not: a sign of masked gradients."
        )
    return messages
