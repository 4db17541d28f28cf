"""Logits and features of one forward pass, the training features that scores are fitted to, and ODIN's score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastreg.distributed import World, gather_in_order
from fastreg.errors import InputError
from fastreg.evaluation import conditions
from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.cuda_graph import CudaGraphForward
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.feature_scores import FitData, head_of
from fastreg.evaluation.pixel_cache import FloatPixels, Pixels, from_arrays
from fastreg.kernels import philox
from fastreg.kernels.attacks import frozen
from fastreg.pipelines import make_loader
from fastreg.pipelines.source import Source
from fastreg.pipelines.subset import Subset
from fastreg.progress import progress

ODIN_TEMPERATURE, ODIN_NOISE = 1000.0, 0.0014  # OpenOOD 1.5's defaults


class FeatureModel:
    """A classifier whose features come with its logits, by one hook that is there during a call only.

    Args:
        classifier: the model. Its graph of torch.compile is not used, since hooks change it.
        size: side of its images in pixels.
        layer: name of the layer of the features: the input of a linear layer, the output of any other, averaged over
            space or tokens. None: the linear layer whose output the model returns.

    Attributes:
        head: the linear layer whose output the model returns; None if the features are not its input.
        why: the reason why there is no head.

    Raises:
        InputError: there is no such layer, or without a name no such linear layer.
    """

    def __init__(self, classifier: Classifier, size: int, layer: str | None = None):
        self.classifier = classifier
        net = classifier.module.net
        self.net = getattr(net, "_orig_mod", net)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator)
        x = classifier.padded(classifier.normalized(drawn.to(classifier.device)).to(classifier.dtype))
        self.head: nn.Linear | None = None
        try:
            with torch.autocast(x.device.type, classifier.dtype, enabled=classifier.module.mixed):
                self.head, self.why = head_of(self.net, x), ""
        except InputError as error:
            if layer is None:
                raise
            self.why = str(error)
        named = dict(self.net.named_modules())
        if layer is not None and (layer not in named or not layer):
            raise InputError(
                f"`feature_layer` {layer} is no layer of the model: give one of its modules, such as "
                f"{', '.join(list(named)[-3:])}."
            )
        self.layer = self.head if layer is None else named[layer]
        if self.layer is not self.head:
            self.head, self.why = None, "it needs the input of the model's last linear layer, not of `feature_layer`"
        self.run: Any = self._both
        if classifier.replayed is not None:
            self.run = CudaGraphForward(self._both, classifier.batch_size)
        self.outputs = 0

    def __call__(self, batch: Pixels | FloatPixels) -> tuple[Tensor, Tensor]:
        """Logits float32 [B, K] and features float32 [B, D]."""
        classifier, n = self.classifier, len(batch.labels)
        if isinstance(batch, FloatPixels):
            x = classifier.module.normalize(batch.pixels)
        else:
            x = classifier.normalized(batch.images)
        with torch.no_grad():
            both = self.run(classifier.padded(x.to(classifier.dtype)))[:n]
        return both[:, : self.outputs], both[:, self.outputs :]

    def _both(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        layer: Any = self.layer
        if isinstance(layer, nn.Linear):
            hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        else:
            hook = layer.register_forward_hook(lambda _, given, out: seen.append(out))
        try:
            logits = self.classifier.module.logits(x, self.net)
        finally:
            hook.remove()
        if len(seen) == 0 or not isinstance(seen[-1], Tensor) or seen[-1].ndim < 2 or len(seen[-1]) != len(x):
            found = f"{list(seen[-1].shape)}" if seen and isinstance(seen[-1], Tensor) else "nothing"
            raise InputError(f"`feature_layer` gives {found} for {len(x)} images: name a layer of [batch, features].")
        features = seen[-1].float()
        if features.ndim == 4:
            features = features.mean((2, 3))
        self.outputs = logits.shape[1]
        return torch.cat((logits, features.flatten(1) if features.ndim != 3 else features.mean(1)), 1)


class FitRows(NamedTuple):
    """The training images that scores are fitted to: a set, its rows in order, their classes in the evaluated data."""

    data: EvalData
    rows: np.ndarray
    labels: np.ndarray

    def settings(self, seed: int) -> dict[str, Any]:
        per_class = np.bincount(self.labels)
        fingerprint = self.data.describe()["fingerprint"]
        counts = {"per_class": [int(per_class.min()), int(per_class.max())], "seed": seed}
        return {"images": len(self.rows), "of": len(self.data), **counts, "fingerprint": fingerprint}


def fit_rows(config: EvalConfig, data: EvalData) -> FitRows | None:
    """The training images of an evaluation; None without ``fit_data``.

    Of at most ``fit_images`` images every class has the same number, to within one, as far as it has so many. Each
    class gives its first images in an order drawn from the seed. Images of classes that the evaluated data lacks are
    left out.

    Raises:
        InputError: no image has a class of the evaluated data.
    """
    if config.fit_data is None:
        return None
    given: Any = config.fit_data
    if isinstance(given, str | Path):
        if not Path(given).is_dir():
            raise InputError(f"`fit_data` {given} is not a folder: give one of class folders.")
        given = Path(given) / "train" if (Path(given) / "train").is_dir() else given
    fit = EvalData(given, config.size, config.crop_pct, config.interpolation)
    if fit.size != data.size:
        raise InputError(f"`fit_data` has images of {fit.size} px, and the data of {data.size}: give others.")
    labels, known = fit.labels, np.arange(len(fit))
    if fit.names and data.names and fit.names != data.names:
        number = {name: k for k, name in enumerate(data.names)}
        labels = np.array([number.get(name, -1) for name in fit.names])[labels]
        known = np.flatnonzero(labels >= 0)
        if not len(known):
            raise InputError(f"`fit_data` has none of the data's classes (such as {data.names[0]!r}): give others.")
    order = philox.permutation(config.seed, len(fit), 0, "order")
    order = order[np.isin(order, known)]
    by_class = np.argsort(labels[order], kind="stable")
    sizes = np.bincount(labels[order])
    turn = np.empty(len(order), np.int64)  # from 0 in each class
    turn[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows = np.sort(order[np.argsort(turn, kind="stable")[: config.fit_images]])
    return FitRows(fit, rows, labels[rows])


def held_out(config: EvalConfig, n: int) -> np.ndarray:
    """The tenth of the data's images that hyperparameters are chosen on, sorted: the first of an order of the seed."""
    return np.sort(philox.permutation(config.seed, n, 1, "order")[: max(1, n // 10)])


def fit(model: FeatureModel, rows: FitRows, classes: int, world: World, config: EvalConfig) -> FitData:
    """The features of the training images, on every rank: one pass over them."""
    with progress("fit", len(rows.rows) // world.size) as bar:
        batches = data_batches(rows.data, rows.rows, world, config)
        features = collect(batches, lambda batch: model(batch)[1], world, bar.advance).to(world.device)
    labels = torch.from_numpy(rows.labels).to(world.device)
    if model.head is None:
        empty = torch.empty(0, features.shape[1], device=world.device)
        return FitData(features, labels, empty, empty[:, 0], classes)
    head, columns = model.head, model.classifier.module.columns
    weight: Tensor = head.weight.detach()
    bias: Tensor = weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach()
    if columns is not None:
        weight, bias = weight[columns], bias[columns]
    return FitData(features, labels, weight.float(), bias.float(), classes)


def collect(
    batches: Iterator[Pixels], values: Callable[[Pixels], Tensor], world: World, progressed: Callable[[int], None]
) -> Tensor:
    """The values [B, ...] of every image of all ranks' batches, in order, on the host."""
    kept, order = [], []
    for batch in batches:
        kept.append(values(batch))
        order.append(batch.indices)
        progressed(len(batch.labels))
    none = torch.empty(0)
    return gather_in_order(torch.cat(kept or [none]), torch.cat(order or [none.long()]), world)


def data_batches(data: EvalData, rows: np.ndarray, world: World, config: EvalConfig) -> Iterator[Pixels]:
    """This rank's batches of some images of a set; their indices are positions in ``rows``."""
    if data.arrays is None:
        yield from source_batches(Subset(data.source, rows, data.source.split), data, world, config)
        return
    images, labels = (array[torch.from_numpy(rows)] for array in data.arrays)
    yield from from_arrays(images, labels, world).batches(config.batch_size)


def source_batches(source: Source, like: EvalData, world: World, config: EvalConfig) -> Iterator[Pixels]:
    """This rank's batches of a source, read in turn; encoded images are resized and cropped as those of ``like``."""
    whole = like.source is None or like.source.layout != "folder"  # CIFAR images are taken whole
    loader = make_loader(
        source,
        loader="dali" if config.loader == "dali" and source.form == "images" else "folder",
        train=False,
        batch_size=config.batch_size,
        size=like.size,
        resize=1.0 if whole else 1 / like.crop_pct,
        interpolation=like.interpolation,
        rank=world.rank,
        world=world.size,
        device=world.device,
        workers=config.workers,
    )
    try:
        for batch in loader.batches():
            yield Pixels(batch.images, batch.labels, batch.indices)
    finally:
        loader.close()


def odin(
    classifier: Classifier,
    pixels: Tensor,
    temperature: float = ODIN_TEMPERATURE,
    noise: float = ODIN_NOISE,
) -> Tensor:
    """The largest softmax probability at a temperature, of pixels that are moved towards their own class.

    Each pixel moves by ``noise`` against the sign of the gradient of -log p, where p is the largest softmax probability
    of z / T. OpenOOD moves the normalized image by noise / std, which is the same. A pixel without a gradient stays.

    Args:
        classifier: from pixels to logits z.
        pixels: float32 [B, 3, S, S] in [0, 1].
        temperature: T.
        noise: on the [0, 1] scale. The moved pixels are not clipped.

    Returns:
        float64 [B]: at T = 1000 the probabilities differ by less than float32 resolves.

    Source:
        Liang et al., Enhancing the reliability of out-of-distribution image detection in neural networks (ICLR 2018),
        equations 1 and 2.
    """
    module = classifier.module
    with frozen(module), torch.enable_grad():
        x = pixels.detach().requires_grad_()
        logits = module(x)
        # times T: the same sign, and no gradient underflows
        loss = temperature * F.cross_entropy(logits / temperature, logits.detach().argmax(1), reduction="sum")
        gradient = torch.autograd.grad(loss, x)[0]
    with torch.no_grad():
        moved = module(pixels - noise * gradient.sign())
    return (moved.double() / temperature).softmax(1).amax(1)


def pixels_of(batch: Pixels | FloatPixels) -> Tensor:
    """float32 [B, 3, S, S] in [0, 1]."""
    return batch.pixels if isinstance(batch, FloatPixels) else conditions.float_pixels(batch.images)
