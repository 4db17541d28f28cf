"""The published sequences of ImageNet-P and CIFAR-10-P: addresses and layouts of the files.

Source: github.com/hendrycks/robustness, its README and its generation and test scripts.
"""

from __future__ import annotations

from typing import NamedTuple


class SequenceSet(NamedTuple):
    """Address, layout and size of a suite's files, and the option that names their folder."""

    address: str
    layout: str
    size: str
    option: str


SEQUENCE_SETS: dict[str, SequenceSet] = {
    "imagenet-p": SequenceSet(
        "https://zenodo.org/record/3565846",
        "<perturbation>/<class>/<image>.mp4: H.264, 224 px, 31 frames (translate: 41)",
        "50,000 videos per perturbation; ten perturbations, and ten extra ones",
        "--imagenet-p-dir",
    ),
    "cifar-p": SequenceSet(
        "https://drive.google.com/drive/folders/1dY1_zeRyjMKdfmMbQ_uK8O1i0MVI9UbZ (CIFAR-10-P), "
        "https://drive.google.com/drive/folders/1Tpssw4Vn6X_4hmIW8KK5LzkKCZpAaae8 (CIFAR-100-P)",
        "<perturbation>.npy: uint8 [10000, 31, 32, 32, 3] (motion_blur: 21 frames, translate: 16)",
        "0.95 GB per array (motion_blur: 0.65, translate: 0.49); 8.8 GB for the ten",
        "--cifar-p-dir",
    ),
}
