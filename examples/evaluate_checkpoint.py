"""Measure your own model, whose weights are a state dict, on a folder of class folders.

python examples/evaluate_checkpoint.py weights.pt data/imagenet/val --suite clean,fgsm,occlusion
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import fastreg


def build_model(num_classes: int) -> nn.Module:
    """Your architecture: normalized float images [B, 3, S, S] to logits [B, num_classes]."""
    layers = [nn.Conv2d(3, 16, 4, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(4)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, num_classes))


parser = argparse.ArgumentParser(description="Print the scorecard of a model.")
parser.add_argument("weights", type=Path, help="state dict, written by torch.save(model.state_dict(), FILE)")
parser.add_argument("data", type=Path, help="folder of class folders")
parser.add_argument("--suite", default="clean,fgsm,occlusion", help="suites, joined by commas")
parser.add_argument("--size", type=int, default=64)
parser.add_argument("--out", type=Path, default=Path("runs/mine"), help="folder for scorecard.json")
args = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
model = build_model(num_classes=sum(path.is_dir() for path in args.data.iterdir()))
model.load_state_dict(torch.load(args.weights, map_location=device, weights_only=True))
card = fastreg.evaluate(
    model.to(device).eval(),
    args.suite,
    args.data,
    size=args.size,
    mean=(0.485, 0.456, 0.406),  # the normalization that the model was trained with
    std=(0.229, 0.224, 0.225),
    out=args.out,
)
for name, value in card.summary().items():
    print(f"{name}: {value:.2f}")
