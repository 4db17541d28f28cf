"""Train with Lightning: a module that augments uint8 batches on the device, and fastreg's loader.

python examples/lightning_module.py data/imagenet --epochs 8
"""

import argparse
from collections.abc import Iterator

import lightning
import torch

from fastreg import Batch
from fastreg.kernels import BatchAugment, MixedCrossEntropy
from fastreg.methods import create_method
from fastreg.models import create_model
from fastreg.pipelines import make_loader, open_dataset


class Classifier(lightning.LightningModule):
    """A classifier that gets ``Batch`` tuples: uint8 images, labels, indices, crop."""

    def __init__(self, num_classes: int, method: str = "cutmix", size: int = 64):
        super().__init__()
        self.model = create_model("resnet18", num_classes)
        self.augment = BatchAugment(create_method(method), size=size)
        self.loss = MixedCrossEntropy(label_smoothing=0.1)

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        images, targets = self.augment(batch.images, batch.labels, batch.indices.cpu(), batch.crop)
        loss = self.loss(self.model(images), targets)
        self.log("loss", loss, prog_bar=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        images, _ = self.augment(batch.images, batch.labels, crop=batch.crop)  # eval mode: normalizes only
        correct = self.model(images).argmax(1) == batch.labels
        self.log("val_error", 100 * (~correct).float().mean(), prog_bar=True, batch_size=len(images))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)


class Epochs:
    """The epochs of a loader, one per iteration, each in its own order."""

    def __init__(self, loader):
        self.loader, self.epoch = loader, 0

    def __len__(self) -> int:
        return self.loader.steps_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        position = self.epoch * self.loader.steps_per_epoch * self.loader.global_batch
        self.epoch += self.loader.order.train
        return self.loader.batches(position)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a ResNet-18 on class folders.")
    parser.add_argument("data", help="folder with train/ and val/")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_args()

    train, val = (open_dataset("folder", split, args.data) for split in ("train", "val"))
    shared = {"batch_size": args.batch_size, "size": args.size}
    with make_loader(train, train=True, **shared) as loader, make_loader(val, train=False, **shared) as val_loader:
        module = Classifier(len(train.classes), size=args.size)
        trainer = lightning.Trainer(max_epochs=args.epochs, logger=False, enable_checkpointing=False)
        trainer.fit(module, Epochs(loader), Epochs(val_loader))
    print(f"validation error {trainer.callback_metrics['val_error']:.1f} %")
