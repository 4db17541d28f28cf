"""Write ``openood.npz``: scores and metrics of OpenOOD 1.5's own code on a small model and on extreme scores.

    python tests/golden/make_openood.py FOLDER

FOLDER is a checkout of github.com/Jingkang50/OpenOOD. Needs scikit-learn, scipy, faiss-cpu and tqdm. Its postprocessors
run on the CPU.
"""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

SIDE, WIDTH, CLASSES, DIM = 4, 24, 5, 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = {"msp": "base", "mls": "maxlogit", "odin": "odin", "knn": "knn", "mds": "mds", "rmds": "rmds"}
NAMES |= {"react": "react", "dice": "dice", "vim": "vim"}
ARGUMENTS = {
    "odin": {"temperature": 1000, "noise": 0.0014},
    "knn": {"K": 50},
    "react": {"percentile": 90},
    "dice": {"p": 90},
    "vim": {"dim": DIM},
}


class Net(nn.Module):
    """A hidden layer of rectified features, as OpenOOD's networks are called."""

    def __init__(self, body, head):
        super().__init__()
        self.body, self.head = body, head

    def forward(self, x, return_feature=False):
        feature = self.body(x.flatten(1)).relu()
        return (self.head(feature), feature) if return_feature else self.head(feature)

    def forward_threshold(self, x, threshold):
        return self.head(self(x, return_feature=True)[1].clip(max=threshold))

    def get_fc(self):
        return self.head.weight.detach().numpy(), self.head.bias.detach().numpy()


def module(folder, path):
    """A module of the checkout, without its packages' own imports."""
    for package in (
        "openood",
        "openood.postprocessors",
        "openood.evaluators",
        "openood.utils",
        "openood.preprocessors",
    ):
        if package not in sys.modules:
            sys.modules[package] = types.ModuleType(package)
            sys.modules[package].__path__ = [str(folder / package.replace(".", "/"))]
    sys.modules["openood.utils"].comm = types.SimpleNamespace(is_main_process=lambda: False)
    sys.modules["openood.utils.comm"] = sys.modules["openood.utils"].comm
    transform = types.ModuleType("openood.preprocessors.transform")
    transform.normalization_dict = {"toy": [MEAN, STD]}
    sys.modules["openood.preprocessors.transform"] = transform
    return importlib.import_module(path)


def batches(images, labels):
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    return [
        {"data": pixels[k : k + 32], "label": torch.from_numpy(labels[k : k + 32])} for k in range(0, len(pixels), 32)
    ]


def namespace(name):
    arguments = types.SimpleNamespace(**ARGUMENTS.get(name, {}))
    postprocessor = types.SimpleNamespace(postprocessor_args=arguments, postprocessor_sweep={})
    return types.SimpleNamespace(postprocessor=postprocessor, dataset=types.SimpleNamespace(name="toy"))


def extreme(rng):
    """Pairs of scores: random, with ties, saturated, all equal, of one image, apart."""
    normal = rng.normal(size=101)
    yield "random", normal + 1, rng.normal(size=57)
    yield "ties", np.round(normal), np.round(rng.normal(size=60) - 0.5)
    yield "saturated", np.ones(50), np.r_[np.ones(30), np.full(10, 1 - 1e-12)]
    yield "equal", np.ones(20), np.ones(30)
    yield "one", np.array([0.5]), np.array([0.7])
    yield "apart", normal + 100, normal - 100
    yield "reversed", normal - 100, normal + 100


def main(folder):
    torch.Tensor.cuda = lambda tensor, *args: tensor
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    centers = rng.integers(40, 216, (CLASSES, SIDE, SIDE, 3))
    labels = {"train": np.arange(240) % CLASSES, "inside": np.arange(60) % CLASSES, "outside": np.zeros(50, np.int64)}
    images = {
        name: np.clip(centers[labels[name]] + rng.normal(0, 30, (len(labels[name]), SIDE, SIDE, 3)), 0, 255).astype(
            np.uint8
        )
        for name in ("train", "inside")
    }
    images["outside"] = rng.integers(0, 256, (50, SIDE, SIDE, 3)).astype(np.uint8)
    body, head = nn.Linear(SIDE * SIDE * 3, WIDTH), nn.Linear(WIDTH, CLASSES)
    with torch.no_grad():
        for parameter in (*body.parameters(), *head.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    net = Net(body, head).eval()
    info = module(folder, "openood.postprocessors.info")
    info.num_classes_dict["toy"] = CLASSES
    compute = module(folder, "openood.evaluators.metrics").compute_all_metrics
    loaders = {name: batches(images[name], labels[name]) for name in images}
    written = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    written |= {f"{name}_images": images[name] for name in images} | {f"{name}_labels": labels[name] for name in images}
    for name, file in NAMES.items():
        found = vars(module(folder, f"openood.postprocessors.{file}_postprocessor"))
        (kind,) = (
            v
            for k, v in found.items()
            if k.endswith("Postprocessor") and v.__module__.endswith(f"{file}_postprocessor")
        )
        postprocessor = kind(namespace(name))
        postprocessor.setup(net, {"train": loaders["train"], "val": loaders["train"]}, {})
        scores = {}
        for side in ("inside", "outside"):
            predicted, scores[side], _ = postprocessor.inference(net, loaders[side], progress=False)
            written[f"{name}_{side}"] = scores[side]
            if side == "inside":
                right = predicted
        conf = np.concatenate([scores["inside"], scores["outside"]])
        label = np.concatenate([labels["inside"], np.full(50, -1)])
        written[f"{name}_metrics"] = np.array(compute(conf, label, np.concatenate([right, np.zeros(50)])))
    for name, inside, outside in extreme(rng):
        label = np.concatenate([np.zeros(len(inside)), np.full(len(outside), -1)])
        conf = np.concatenate([inside, outside])
        written |= {f"extreme_{name}_in": inside, f"extreme_{name}_out": outside}
        written[f"extreme_{name}_metrics"] = np.array(compute(conf, label, np.zeros(len(conf))))
    np.savez_compressed(Path(__file__).with_name("openood.npz"), **written)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
