"""The suites of attacks: FGSM, PGD and AutoAttack; their settings, notes and the store of finished images."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.evaluation import conditions
from fastreg.evaluation.attacks import AutoAttack, need_torchattacks
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.config import EPSILON, EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.pixel_cache import Pixels
from fastreg.evaluation.scorecard_data import ScorecardData
from fastreg.evaluation.types import Condition, SuitePlan
from fastreg.files import atomic_write

# option of an evaluation -> its value for the paper's PGD; the card keeps those that differ
PGD = {
    "attack_norm": "linf",
    "attack_step_size": None,
    "attack_restarts": 1,
    "attack_target": None,
    "attack_samples": 1,
}


def fgsm(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """One signed step."""
    settings: dict[str, Any] = {"epsilon": config.epsilon, "clip": config.clip, "steps": 1}
    return SuitePlan(settings, {"fgsm": _condition(conditions.Attack(**settings))})


def pgd(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """Projected gradient descent."""
    own = {name.removeprefix("attack_"): getattr(config, name) for name in PGD if getattr(config, name) != PGD[name]}
    settings = {"epsilon": config.epsilon, "clip": config.clip, "steps": config.attack_steps, **own}
    return SuitePlan(settings, {"pgd": _condition(conditions.Attack(seed=config.seed, **settings))})


def _condition(run: conditions.Attack) -> Condition:
    return Condition(run, gradient=True, counts={"zero_gradient": lambda: run.unmoved})


def altered(card: ScorecardData, suite: str) -> list[str]:
    """Departures from the paper's attacks."""
    settings = card.suite_settings(suite)
    messages = []
    if settings.get("epsilon", EPSILON) != EPSILON:
        messages.append(f"epsilon {settings['epsilon']:.4g} instead of 8/255")
    if settings.get("clip") is False:
        messages.append("pixels are not clipped to [0, 1]")
    if settings.get("steps", 1) not in (1, conditions.PGD_STEPS):
        messages.append(f"{settings['steps']} steps instead of {conditions.PGD_STEPS}")
    words = {"norm": "norm {}", "step_size": "steps of {:.4g}", "restarts": "{} random starts", "target": "target {}"}
    words["samples"] = "gradients averaged over {} passes"
    return messages + [text.format(settings[name]) for name, text in words.items() if name in settings]


def autoattack(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    """AutoAttack, which continues at the image at which it was interrupted.

    Raises InputError if torchattacks is not installed.
    """
    need_torchattacks()
    settings = {"epsilon": config.epsilon, "norm": config.attack_norm, "version": "standard"}
    out = None if config.out is None else Path(config.out) / "autoattack"
    run = _AutoAttackRun(settings, config.seed, out, eval_data.describe())
    counts = {f"broken_{name}": partial(run.counts.__getitem__, name) for name in run.counts}
    return SuitePlan(settings, {"autoattack": Condition(run, gradient=True, counts=counts, finish=run.finish)})


class _AutoAttackRun:
    """Function from a batch to logits of its attacked images.

    Each finished batch is a file of ``folder``, so that an interrupted evaluation goes on with the images that are in
    no file, also with another batch size or number of ranks.
    """

    def __init__(self, settings: Mapping[str, Any], seed: int, folder: Path | None, data: Mapping[str, Any]):
        self.settings, self.seed, self.folder, self.data = settings, seed, folder, data
        self.attack: AutoAttack | None = None
        self.done: dict[int, np.ndarray] = {}
        self.counts = dict.fromkeys(AutoAttack.NAMES, 0)

    def __call__(self, classifier: Classifier, batch: Pixels) -> Tensor:
        if self.attack is None:
            classes = classifier.images(batch.images[:1]).shape[1]
            given = {"epsilon": self.settings["epsilon"], "norm": self.settings["norm"], "seed": self.seed}
            self.attack = AutoAttack(classifier.module, classes, **given)
            self._open(classifier.digest)
        indices = batch.indices.tolist()
        left = torch.tensor(
            [k for k, index in enumerate(indices) if index not in self.done], device=batch.images.device
        )
        if len(left):
            before = dict(self.attack.broken)
            images = conditions.float_pixels(batch.images[left])
            logits = classifier.pixels(self.attack(images, batch.labels[left])).cpu().numpy()
            broken = {name: self.attack.broken[name] - before[name] for name in before}
            self._keep([indices[k] for k in left.tolist()], logits, broken)
        return torch.from_numpy(np.stack([self.done[index] for index in indices])).to(batch.images.device)

    def _open(self, digest: str) -> None:
        """Read the files of an earlier run with this model, data and settings."""
        if self.folder is None:
            return
        key = json.dumps([digest, self.data, self.settings, self.seed], sort_keys=True, default=str)
        self.folder /= hashlib.sha256(key.encode()).hexdigest()[:12]
        for file in sorted(self.folder.glob("*.npz")):
            try:
                with np.load(file, allow_pickle=False) as stored:
                    self._add(
                        stored["indices"].tolist(),
                        stored["logits"],
                        dict(zip(AutoAttack.NAMES, stored["broken"].tolist())),
                    )
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                file.unlink()  # cut short: its images are attacked again

    def _add(self, indices: list[int], logits: np.ndarray, broken: Mapping[str, int]) -> None:
        self.done.update(zip(indices, logits))
        for name, count in broken.items():
            self.counts[name] += count

    def _keep(self, indices: list[int], logits: np.ndarray, broken: Mapping[str, int]) -> None:
        self._add(indices, logits, broken)
        if self.folder is not None:
            buffer = io.BytesIO()
            np.savez(buffer, indices=indices, logits=logits, broken=list(broken.values()))
            atomic_write(self.folder / f"{indices[0]:09d}.npz", buffer.getvalue())

    def finish(self) -> None:
        """Remove the files: the card has the figures."""
        if self.folder is not None:
            shutil.rmtree(self.folder.parent, ignore_errors=True)


def notes(card: ScorecardData, suite: str, weaker: str = "") -> list[str]:
    """Images without a gradient, and signs of masked gradients: an attack that should be stronger finds less.

    Athalye, Carlini and Wagner 2018 (1802.00420), section 3.1.

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
    if found := row.get("broken_square"):
        messages.append(
            f"Square, which uses no gradient, misleads the model on {found} images on which three gradient attacks did "
            f"not: a sign of masked gradients."
        )
    return messages
