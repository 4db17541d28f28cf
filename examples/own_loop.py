"""Train with your own loop: fastreg provides batches, augmentation and loss.

python examples/own_loop.py data/imagenet --epochs 8
"""

import argparse

import torch

from fastreg.kernels import BatchAugment, MixedCrossEntropy
from fastreg.methods import create_method
from fastreg.metrics import top1_error
from fastreg.models import create_model
from fastreg.pipelines import make_loader, open_dataset

parser = argparse.ArgumentParser(description="Train a ResNet-18 on class folders.")
parser.add_argument("data", help="folder with train/ and val/")
parser.add_argument("--method", default="cutmix", help="fastreg's methods, joined by +")
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--size", type=int, default=64)
args = parser.parse_args()

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
train, val = (open_dataset("folder", split, args.data) for split in ("train", "val"))
model = create_model("resnet18", len(train.classes)).to(device, memory_format=torch.channels_last)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
augment = BatchAugment(create_method(args.method), size=args.size, dtype=dtype)
criterion = MixedCrossEntropy(label_smoothing=0.1)

shared = {"batch_size": args.batch_size, "size": args.size, "device": device}
with make_loader(train, train=True, **shared) as loader, make_loader(val, train=False, **shared) as val_loader:
    for epoch in range(args.epochs):
        model.train(), augment.train()
        for batch in loader.batches(position=epoch * loader.steps_per_epoch * loader.global_batch):
            images, targets = augment(batch.images, batch.labels, batch.keys, batch.crop)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = criterion(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        model.eval(), augment.eval()
        correct = []
        with torch.inference_mode():
            for batch in val_loader.batches():
                images, _ = augment(batch.images, batch.labels, crop=batch.crop)
                correct.append(model(images.float()).argmax(1) == batch.labels)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, validation error {top1_error(torch.cat(correct)):.1f} %")
