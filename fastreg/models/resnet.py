"""ResNet-18 to 152 with torchvision's state-dict names, initialization and stride (in the 3x3 convolution).

Source: He et al., Deep residual learning for image recognition (CVPR 2016), table 1. The CIFAR stem is a 3x3
convolution of stride 1 without pooling, with the same state-dict names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastreg.models.blurpool import BlurConv2d
from fastreg.models.branch import attach


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int = 1, blur: bool = False):
        super().__init__()
        self.conv1 = conv(inputs, planes, 3, stride, blur)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = projection(inputs, planes, stride, blur)
        self.drop: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.drop(self.bn2(self.conv2(out)))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 (with the stride) and 1x1 (to four times the planes)."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int = 1, blur: bool = False):
        super().__init__()
        self.conv1 = conv(inputs, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv(planes, planes, 3, stride, blur)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = conv(planes, planes * 4, 1)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = projection(inputs, planes * 4, stride, blur)
        self.drop: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.drop(self.bn3(self.conv3(out)))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


Block = type[BasicBlock] | type[Bottleneck]
RESNETS: dict[str, tuple[Block, tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """[B, 3, h, w] normalized images to [B, num_classes] logits.

    ``zero_init_residual`` starts each block as the identity (Goyal et al. 2017, section 5.1). ``blurpool`` filters the
    input of every strided convolution but the stem's. ``shakedrop`` and ``stochastic_depth`` are those of branch.py.
    """

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(
        self,
        block: Block,
        depths: tuple[int, int, int, int],
        num_classes: int,
        stem: str = "imagenet",
        shakedrop: bool = False,
        stochastic_depth: float = 0.0,
        blurpool: bool = False,
        zero_init_residual: bool = False,
    ):
        super().__init__()
        small = stem == "cifar"
        self.conv1 = conv(3, 64, 3) if small else conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for stage, depth in enumerate(depths):
            planes = 64 << stage
            blocks = []
            for i in range(depth):
                blocks.append(block(inputs, planes, 2 if stage and i == 0 else 1, blurpool))
                inputs = planes * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)
        initialize(self)
        blocks = [m for m in self.modules() if isinstance(m, BasicBlock | Bottleneck)]
        if zero_init_residual:
            for m in blocks:
                nn.init.zeros_((m.bn2 if isinstance(m, BasicBlock) else m.bn3).weight)
        attach(self, blocks, shakedrop, stochastic_depth)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, blur: bool = False) -> nn.Conv2d:
    kind = BlurConv2d if blur and stride > 1 else nn.Conv2d
    return kind(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def projection(inputs: int, outputs: int, stride: int, blur: bool) -> nn.Sequential | None:
    """The shortcut of a block whose output has another shape than its input."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(inputs, outputs, 1, stride, blur), nn.BatchNorm2d(outputs))


def initialize(model: nn.Module) -> None:
    """torchvision's initialization: convolutions He-normal by fan-out; norms and linear layers as in torch."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
