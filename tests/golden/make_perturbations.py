"""Write ``perturbations.npz``: frames of the published ImageNet-P and CIFAR-10-P code, with its random fields.

    python tests/golden/make_perturbations.py FOLDER

FOLDER is ``ImageNet-P`` of github.com/hendrycks/robustness. Its scripts are blocks, one per perturbation, all but one
commented out; each block runs here as it stands, with its numbers of random calls recorded. ImageNet-P's blocks run at
40 px instead of 224 and without the video encoder. Needs torchvision 0.2.1, numpy 1, Pillow 9, OpenCV 4, scikit-image
0.21, scipy, ImageMagick 6 and wand, for which the code was written; ``--torch FOLDER`` adds the folder of a torch.
"""

import argparse
import functools
import os
import re
import sys
import types
from pathlib import Path

import numpy as np
import PIL

SIZE = 40  # of ImageNet-P's frames here; its images are resized to a shorter side of 46
FRAMES = (0, 1, 15, -1)  # that are stored
NOISY = (0, 1, -1)  # of noise


def blocks(script):
    """name -> source of every perturbation of a script, without its comment signs."""
    text = "\n".join(line.removeprefix("    ") for line in Path(script).read_text().splitlines())
    found = {}
    for title, body in re.findall(r"/+ (\w+(?: \w+)?) Code /+\n(.*?)/+ End", text, flags=re.S):
        lines = body.splitlines()[:-1]
        commented = all(line.strip().startswith("#") or not line.strip() for line in lines)
        if commented:
            lines = [re.sub(r"^( *)# ?", r"\1", line, count=1) for line in lines]
        lines = [line for line in lines if line.strip() and not line.strip().startswith("#")]
        indent = min(len(line) - len(line.lstrip()) for line in lines)
        found[title.lower().replace(" ", "_")] = "\n".join(line[indent:] for line in lines)
    return found


def namespace(record):
    """The imports of the scripts, with random numbers recorded and without the video encoder."""
    import ctypes
    from io import BytesIO
    from shutil import rmtree
    from tempfile import gettempdir

    import cv2
    import skimage.color as skcolor
    import torch
    import torchvision.transforms as trn
    import torchvision.transforms.functional as trn_F
    from PIL import Image as PILImage
    from scipy.ndimage import zoom as scizoom
    from skimage.filters import gaussian
    from wand.api import library as wandlibrary
    from wand.image import Image as WandImage

    def normal(loc=0.0, scale=1.0, size=None):
        drawn = np.random.standard_normal(size).astype(np.float32)
        record.append(drawn)
        return loc + scale * drawn.astype(np.float64)  # as numpy's

    def poisson(rate):
        drawn = np.random.poisson(rate)
        record.append(drawn.astype(np.int16))
        return drawn

    def randn_like(x):
        drawn = torch.randn_like(x)
        record.append(drawn.numpy().transpose(1, 2, 0).copy())
        return drawn

    random = types.SimpleNamespace(normal=normal, poisson=poisson)
    numpy = types.ModuleType("numpy")
    numpy.__dict__.update({**np.__dict__, "random": random})
    recorded_torch = types.SimpleNamespace(clamp=torch.clamp, randn_like=randn_like)
    blur = functools.partial(_skimage_gaussian, gaussian)
    return {
        "np": numpy,
        "torch": recorded_torch,
        "trn": trn,
        "trn_F": trn_F,
        "cv2": cv2,
        "PILImage": PILImage,
        "skcolor": skcolor,
        "WandImage": WandImage,
        "wandlibrary": wandlibrary,
        "BytesIO": BytesIO,
        "ctypes": ctypes,
        "scizoom": scizoom,
        "gaussian": blur,
        "gettempdir": gettempdir,
        "rmtree": rmtree,
    }


def _skimage_gaussian(gaussian, image, multichannel=False, **options):
    return gaussian(image, channel_axis=-1 if multichannel else None, **options)


def definitions(script, names):
    """Run the script's own imports-free part: its class and functions, which stand before the data are read."""
    text = Path(script).read_text()
    start = text.index("# Tell Python about the C method")
    end = min(text.index(stop) for stop in ("for index, folder", "test_data = dset") if stop in text)
    exec(text[start:end], names)


def run_cifar(source, image, names, record):
    record.clear()
    scope = {**names, "img": image, "seq": []}
    exec(source, scope)
    return np.stack(scope["seq"]), list(record)


def run_imagenet(source, image, names, record):
    """The block writes PNG files for the video encoder; they are read at its call."""
    record.clear()
    frames = []

    def encode(line):
        folder = Path(re.search(r"-i (\S+)/img", line)[1])
        count = len(list(folder.glob("img*.png")))
        frames.extend(np.asarray(PIL.Image.open(folder / f"img{i}.png").convert("RGB")) for i in range(count))

    system = types.SimpleNamespace(path=os.path, makedirs=os.makedirs, times=os.times, system=encode)
    system.path = types.SimpleNamespace(join=os.path.join, exists=lambda path: True)
    scope = {**names, "os": system, "img": PIL.Image.fromarray(image), "folder": "x", "img_loc": "x.JPEG"}
    exec(source.replace("224", str(SIZE)), scope)
    return np.stack(frames), list(record)


def main(folder, target):
    from skimage import data

    photo = data.astronaut()
    small = photo[0:368:8, 96:552:8][:46, :57]  # 46 x 52
    whole = np.stack([small, small // 85 * 85])  # flat areas, too
    square = np.stack([photo[40:168:4, 160:288:4], photo[40:168:4, 160:288:4] // 85 * 85])
    out = {"imagenet224/images": whole, "cifar32/images": square}
    np.random.seed(0)
    for name, script, images, run in (
        ("imagenet224", "make_imagenet_p.py", whole, run_imagenet),
        ("cifar32", "make_cifar_p.py", square, run_cifar),
    ):
        record = []
        names = namespace(record)
        script = Path(folder) / "create_p" / script
        definitions(script, names)
        for perturbation, source in blocks(script).items():
            made = [run(source, image, names, record) for image in images]
            frames, drawn = np.stack([frames for frames, _ in made]), [fields for _, fields in made]
            # the levels of CIFAR's noise follow one another; the levels of ImageNet's are other blocks
            levels = (frames.shape[1] - 1) // 30 if perturbation.endswith("noise") else 1
            for level in range(levels):
                key = f"{name}/{perturbation}" + (f"_{level + 1}" if level else "")
                own = [0, *range(30 * level + 1, 30 * level + 31)] if levels > 1 else range(frames.shape[1])
                out[f"{key}/count"] = np.array(len(own))
                stored = [own[i] for i in (NOISY if len(drawn[0]) > 1 else FRAMES)]
                out[f"{key}/frames"] = frames[:, stored]
                if len(drawn[0]) == 1:  # one layer for all frames
                    out[f"{key}/normal"] = np.stack([fields[0] for fields in drawn])
                elif drawn[0]:  # those of the stored frames; frame 0 has none
                    field = "counts" if "shot" in perturbation else "normal"
                    out[f"{key}/{field}"] = np.stack([[fields[i - 1] for i in stored[1:]] for fields in drawn])
                print(key, frames.shape, len(drawn[0]))
    np.savez_compressed(target, **out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--torch")
    parser.add_argument("--out", default=Path(__file__).parent / "perturbations.npz")
    given = parser.parse_args()
    sys.path += [given.torch] if given.torch else []
    PIL.PILLOW_VERSION = PIL.__version__  # torchvision 0.2.1 imports it
    main(given.folder, given.out)
