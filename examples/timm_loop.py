"""Train a timm model with timm's loader and optimizer; fastreg replaces timm's Mixup and loss.

    python examples/timm_loop.py data/imagenet --model resnet18

timm's transforms end in uint8. Flip, normalization and mixing are left to BatchAugment, one launch on a GPU.
"""

import argparse

import timm
import torch
from timm.data import create_dataset, create_transform
from timm.data.loader import fast_collate
from timm.optim import create_optimizer_v2

from fastreg.kernels import BatchAugment, MixedCrossEntropy
from fastreg.methods import create_method

parser = argparse.ArgumentParser(description="Train a timm model on class folders.")
parser.add_argument("data", help="folder with train/")
parser.add_argument("--model", default="resnet18")
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--size", type=int, default=64)
parser.add_argument("--workers", type=int, default=2)
args = parser.parse_args()

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
dataset = create_dataset("", root=args.data, split="train", is_training=True)
dataset.transform = create_transform(args.size, is_training=True, use_prefetcher=True, hflip=0.0)
loader = torch.utils.data.DataLoader(
    dataset, args.batch_size, shuffle=True, drop_last=True, num_workers=args.workers, collate_fn=fast_collate
)
model = timm.create_model(args.model, num_classes=len(dataset.reader.class_to_idx)).to(device)
optimizer = create_optimizer_v2(model, opt="sgd", lr=0.05)
mixup_fn = BatchAugment(create_method("mixup+cutmix"))
train_loss_fn = MixedCrossEntropy(label_smoothing=0.1)

for epoch in range(args.epochs):
    for images, labels in loader:  # uint8 [B, 3, H, W], int64 [B]
        images = images.permute(0, 2, 3, 1).contiguous().to(device)
        images, targets = mixup_fn(images, labels.to(device))
        loss = train_loss_fn(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
