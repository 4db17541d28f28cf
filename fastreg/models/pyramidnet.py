"""PyramidNet for 32 px images: the number of channels grows linearly from block to block, by alpha in total.

Source: Han, Kim and Kim, Deep pyramidal residual networks (CVPR 2017), sections 3 and 4. The state dict has the names
of the CutMix authors' release, so its checkpoints load.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastreg.models.branch import attach


class PyramidBlock(nn.Module):
    """Norm, convolution, then (norm, ReLU, convolution) for the others, norm. Zero-padded shortcut, no final ReLU."""

    conv1: nn.Module
    conv2: nn.Module
    conv3: nn.Module
    bn1: nn.Module
    bn2: nn.Module
    bn3: nn.Module
    bn4: nn.Module

    def __init__(self, inputs: int, planes: int, stride: int, bottleneck: bool):
        super().__init__()
        outputs = planes * 4 if bottleneck else planes
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        widths = (inputs, planes, planes, outputs) if bottleneck else (inputs, planes, planes)
        strided = 1 if bottleneck else 0
        self.count = len(kernels)
        for i, (kernel, (before, after)) in enumerate(zip(kernels, pairwise(widths))):
            step = stride if i == strided else 1
            layer = nn.Conv2d(before, after, kernel, step, padding=kernel // 2, bias=False)
            setattr(self, f"bn{i + 1}", nn.BatchNorm2d(before))
            setattr(self, f"conv{i + 1}", layer)
        setattr(self, f"bn{self.count + 1}", nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.AvgPool2d(2, ceil_mode=True) if stride > 1 else None
        self.drop: nn.Module = nn.Identity()
        self.padding = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.bn1(x))
        out = self.conv2(self.relu(self.bn2(out)))
        if self.count == 2:
            out = self.bn3(out)
        else:
            out = self.bn4(self.conv3(self.relu(self.bn3(out))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.drop(out) + F.pad(shortcut, (0, 0, 0, 0, 0, self.padding))


# name -> (depth, alpha, bottleneck)
PYRAMIDNETS = {"pyramidnet200": (200, 240, True), "pyramidnet110": (110, 270, False)}


class PyramidNet(nn.Module):
    """[B, 3, h, w] normalized images (32 px) to [B, num_classes] logits."""

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module

    def __init__(
        self,
        depth: int,
        alpha: int,
        bottleneck: bool,
        num_classes: int,
        shakedrop: bool = False,
        stochastic_depth: float = 0.0,
    ):
        super().__init__()
        per_stage = (depth - 2) // (9 if bottleneck else 6)
        count = 3 * per_stage
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs, blocks = 16, []
        for i in range(count):
            planes = round(16 + alpha * (i + 1) / count)
            blocks.append(PyramidBlock(inputs, planes, 2 if i in (per_stage, 2 * per_stage) else 1, bottleneck))
            inputs = planes * 4 if bottleneck else planes
        for stage in range(3):
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks[stage * per_stage : (stage + 1) * per_stage]))
        self.bn_final = nn.BatchNorm2d(inputs)
        self.relu_final = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                height, width = module.kernel_size
                nn.init.normal_(module.weight, std=math.sqrt(2 / (height * width * module.out_channels)))
        attach(self, blocks, shakedrop, stochastic_depth)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(self.relu_final(self.bn_final(x))), 1))
