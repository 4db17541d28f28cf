"""The scores of ``ood-features`` for one model: fitted once, then computed batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastreg.distributed import World
from fastreg.errors import InputError
from fastreg.evaluation import feature_scores, scores
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.features import (
    ODIN_NOISE,
    ODIN_TEMPERATURE,
    FeatureModel,
    FitRows,
    collect,
    data_batches,
    fit,
    odin,
    pixels_of,
    source_batches,
)
from fastreg.evaluation.ood_sets import ImageFiles
from fastreg.evaluation.pixel_cache import FloatPixels, Pixels
from fastreg.metrics import auroc
from fastreg.progress import progress

# name -> heading, the name in OpenOOD's leaderboard
SCORES = {
    "max_softmax": "MSP",
    "max_logit": "MLS",
    "energy": "EBO",
    "entropy": "entropy",
    "odin": "ODIN",
    "knn": "KNN",
    "mahalanobis": "MDS",
    "relative_mahalanobis": "RMDS",
    "react": "ReAct",
    "dice": "DICE",
    "vim": "ViM",
}
OF_LOGITS: dict[str, Callable[[Tensor], Tensor]] = {
    name: getattr(scores, name) for name in ("max_softmax", "max_logit", "energy", "entropy")
}
FITTED = feature_scores.FEATURE_SCORES
NEED_HEAD = ("react", "dice", "vim")
DEFAULTS: dict[str, dict[str, float]] = {
    "odin": {"temperature": ODIN_TEMPERATURE, "noise": ODIN_NOISE},
    "knn": {"k": 50},
    "react": {"percentile": 90},
    "dice": {"percentile": 90},
    "vim": {"dim": 256},
}
# OpenOOD 1.5's sweeps; its DICE has one candidate, and the others none
SWEEPS: dict[str, list[dict[str, float]]] = {
    "odin": [{"temperature": t, "noise": e} for e in (0.0014, 0.0028) for t in (1, 10, 100, 1000)],
    "knn": [{"k": k} for k in (50, 100, 200, 500, 1000)],
    "react": [{"percentile": p} for p in (85, 90, 95, 99)],
    "vim": [{"dim": d} for d in (256, 1000)],
}

Function = Callable[[Pixels | FloatPixels, Tensor, Tensor | None], Tensor]  # of batch, logits and features to [B]


class Scorer:
    """The scores of a model's images, in the order of ``names``.

    Args:
        data: the evaluated data.
        wanted: names of ``SCORES``.
        rows: the training images; None: there are none, and scores from features are left out.
        validation: the images on which hyperparameters are chosen; None: they are OpenOOD's defaults.
        apart: indices of the data's images that are for validation, and not scored.

    Attributes:
        facts: the hyperparameters and the reasons for scores that are left out, for the card.
    """

    def __init__(
        self,
        data: EvalData,
        wanted: Sequence[str],
        rows: FitRows | None,
        validation: ImageFiles | None,
        apart: np.ndarray | None,
    ):
        self.data, self.wanted, self.rows, self.validation, self.apart = data, wanted, rows, validation, apart
        self.facts: dict[str, Any] = {}
        self.functions: dict[str, Function] = {}
        self.model: FeatureModel | None = None
        self.prepared = False

    @property
    def names(self) -> list[str]:
        return list(self.functions)

    @property
    def scored(self) -> Tensor:
        """bool [N], the data's images that are scored."""
        kept = torch.ones(len(self.data), dtype=torch.bool)
        kept[torch.from_numpy(self.apart if self.apart is not None else np.empty(0, np.int64))] = False
        return kept

    def prepare(self, classifier: Classifier, world: World, config: EvalConfig) -> None:
        """Fit the scores, once; on every rank."""
        if self.prepared:
            return
        self.prepared = True
        left_out: dict[str, str] = {}
        known = self._fitted(classifier, world, config, left_out)
        made: dict[str, list[tuple[dict[str, float], Function]]] = {}
        for name in self.wanted:
            if name in left_out:
                continue
            sweep = self.validation is not None and name in SWEEPS
            candidates = SWEEPS[name] if sweep else [DEFAULTS.get(name, {})]
            try:
                made[name] = [
                    (one, _function(name, classifier, known, one)) for one in self._possible(name, candidates, known)
                ]
                if name == "odin":
                    _try_gradient(classifier, self.data.size)
            except InputError as error:
                left_out[name] = str(error)
                made.pop(name, None)
        if not made:
            raise InputError(f"none of `ood_scores` can be computed: {next(iter(left_out.values()))}")
        chosen = self._choose(made, classifier, world, config)
        parameters = {name: rows[chosen.get(name, 0)][0] for name, rows in made.items() if rows[0][0]}
        self.functions = {name: rows[chosen.get(name, 0)][1] for name, rows in made.items()}
        self.facts["parameters"] = parameters
        if left_out:
            self.facts["left_out_scores"] = left_out

    def logits(self, classifier: Classifier, batch: Any) -> Tensor:
        """Logits of a batch; its scores follow from :meth:`collect`."""
        logits, features = self._forward(classifier, batch)
        self.values = torch.stack([f(batch, logits, features).double() for f in self.functions.values()], 1)
        return logits

    def collect(self, logits: Tensor, labels: Tensor) -> Tensor:
        """float64 [B, scores] of the last batch."""
        return self.values

    def _forward(self, classifier: Classifier, batch: Any) -> tuple[Tensor, Tensor | None]:
        if self.model is not None:
            return self.model(batch)
        given = isinstance(batch, FloatPixels)
        return (classifier.pixels(batch.pixels) if given else classifier.images(batch.images)), None

    def _fitted(
        self, classifier: Classifier, world: World, config: EvalConfig, left_out: dict[str, str]
    ) -> feature_scores.FitData | None:
        """The training features; fills in the scores that cannot be had, with the reasons."""
        wanted = [name for name in self.wanted if name in FITTED]
        if not wanted:
            return None
        if self.rows is None:
            left_out |= dict.fromkeys(wanted, "no training images were given or found (`fit_data`)")
            return None
        try:
            model = FeatureModel(classifier, self.data.size, config.feature_layer)
            known = fit(model, self.rows, self.data.classes, world, config)
        except InputError as error:
            if config.ood_scores is not None or config.feature_layer is not None:
                raise
            left_out |= dict.fromkeys(wanted, str(error))
            return None
        self.model = model
        if not bool(known.features.isfinite().all()):
            left_out |= dict.fromkeys(wanted, "the model's features of training images are not finite")
        elif model.head is None:
            left_out |= dict.fromkeys([name for name in wanted if name in NEED_HEAD], model.why)
        return known

    def _possible(
        self, name: str, candidates: list[dict[str, float]], known: feature_scores.FitData | None
    ) -> list[dict[str, float]]:
        """The candidates that the features allow; k is at most their number."""
        if known is None or name not in ("knn", "vim"):
            return candidates
        n, width = known.features.shape
        if name == "vim":
            return [one for one in candidates if one["dim"] < width] or [{"dim": max(1, width // 2)}]
        return [one for one in candidates if one["k"] <= n] or [{"k": n}]

    def _choose(
        self,
        made: Mapping[str, Sequence[tuple[dict[str, float], Function]]],
        classifier: Classifier,
        world: World,
        config: EvalConfig,
    ) -> dict[str, int]:
        """The candidate of each score with the highest AUROC on the validation images, the first of equals."""
        if self.validation is None or self.apart is None:
            return {}
        columns = [(name, k, function) for name, rows in made.items() for k, (_, function) in enumerate(rows)]
        columns = [column for column in columns if len(made[column[0]]) > 1]

        def values(batch: Pixels) -> Tensor:
            logits, features = self._forward(classifier, batch)
            return torch.stack([f(batch, logits, features).double() for _, _, f in columns], 1)

        if not columns:
            return {}
        batches_in = data_batches(self.data, self.apart, world, config)
        batches_out = source_batches(self.validation, self.data, world, config)
        with progress("choose", (len(self.apart) + len(self.validation)) // world.size) as bar:
            inside, outside = (collect(batches, values, world, bar.advance) for batches in (batches_in, batches_out))
        found: dict[str, list[float]] = {}
        for i, (name, _, _) in enumerate(columns):
            own, other = (v[:, i][~v[:, i].isnan()] for v in (inside, outside))
            found.setdefault(name, []).append(auroc(own, other) if len(own) and len(other) else 0.0)
        self.facts["validation_auroc"] = {
            name: [{**made[name][k][0], "auroc": value} for k, value in enumerate(row)] for name, row in found.items()
        }
        return {name: row.index(max(row)) for name, row in found.items()}


def _function(
    name: str, classifier: Classifier, known: feature_scores.FitData | None, parameters: Mapping[str, Any]
) -> Function:
    if name in OF_LOGITS:
        of_logits = OF_LOGITS[name]
        return lambda batch, logits, features: of_logits(logits)
    if name == "odin":
        return lambda batch, logits, features: odin(classifier, pixels_of(batch), **parameters)
    assert known is not None
    make: Any = partial(FITTED[name], known, **parameters)
    of_features = make()
    return lambda batch, logits, features: of_features(features)


def _try_gradient(classifier: Classifier, size: int) -> None:
    """Raise InputError if the model gives no gradient of its logits by the pixels."""
    try:
        odin(classifier, torch.full((1, 3, size, size), 0.5, device=classifier.device))
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # a model may raise anything
        why = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"it needs the gradient of the logits by the pixels, and the model gives none "
            f"({type(error).__name__}: {why})"
        ) from error
