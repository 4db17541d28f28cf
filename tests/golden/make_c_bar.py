"""Write ``c_bar.npz``: output of the published ImageNet-C-bar code, with the random fields that fastreg takes.

    python tests/golden/make_c_bar.py FOLDER

FOLDER is ``imagenet_c_bar`` of github.com/facebookresearch/augmentation-corruption. Needs numpy 1.23, scipy and
scikit-image: the published code uses names that numpy 1.24 removed, and numpy 1's rules for types.
"""

import sys
from pathlib import Path

import numpy as np
from skimage import data

SIZE = 40
SEVERITIES = (1, 3, 5)


def published_fields(name, parameters, n):
    """The fields of fastreg for one image, from the parameters that the published code has drawn."""
    p = parameters
    state = np.random.RandomState(p["seed"]) if "seed" in p else None
    if name == "single_frequency_greyscale":
        return {"frequency": p["freq"], "phase": p["phase"]}
    if name == "cocentric_sine_waves":
        return {
            "center": p["offset"],
            "frequency": p["freq"],
            "amplitude": p["amplitude"],
            "ring_width": p["ring_width"],
        }
    if name == "plasma_noise":
        return {key: p[key] for key in ("time", "iterations", "sharpness", "scale")}
    if name == "sparkles":
        normal = np.zeros((5, 199))
        for star, rays in enumerate(p["nrays"]):
            normal[star, :rays] = [state.randn() for _ in range(rays)]
        return {"center": p["centers"], "rays": p["nrays"], "normal": normal}
    if name == "inverse_sparkles":
        normal = np.zeros(199)
        normal[: p["rays"]] = [state.randn() for _ in range(p["rays"])]
        return {"center": p["center"], "rays": p["rays"], "normal": normal}
    if name == "perlin_noise":
        drawn = np.array([state.randint(low=0, high=2**31, size=2) for _ in range(514)])
        permutation = np.arange(256)
        for i in range(255, -1, -1):
            j = state.randint(low=0, high=2**31) % 256
            permutation[i], permutation[j] = permutation[j], permutation[i]
        return {"gradient": (drawn[:256] % 512 - 256).astype(np.int16), "permutation": permutation}
    if name in ("blue_noise_sample", "brownish_noise"):
        channels = []
        for _ in range(3 if name == "brownish_noise" else 1):
            left = state.uniform(low=0, high=2 * np.pi, size=(n, n // 2)).ravel()
            middle = state.uniform(low=0, high=2 * np.pi, size=(n // 2, 1)).ravel() if n % 2 else []
            channels.append(np.concatenate((left, middle)))
        return {"phase": np.stack(channels) if name == "brownish_noise" else channels[0]}
    if name == "checkerboard_cutout":
        side = p["scales"][0]
        squares = int(4 * n // side)
        uniform = np.zeros(1600)
        uniform[: squares * squares] = state.uniform(size=(squares, squares)).ravel()
        return {"angle": p["angle"], "side": side, "uniform": uniform}
    return {"time": p["time"], "size": p["size"]}


def main(folder, target=Path(__file__).parent / "c_bar.npz", n=SIZE, severities=SEVERITIES):
    sys.path.insert(0, folder)
    from transform_finder import transform_dict

    table = [line.split(",") for line in (Path(folder) / "imagenet_c_bar.csv").read_text().split()]
    crop = data.astronaut()[40 : 40 + 4 * n : 4, 160 : 160 + 4 * n : 4]
    images = np.stack((crop, crop // 85 * 85))  # flat areas too
    out = {"images": images}
    np.random.seed(0)
    for name, *levels in table:
        for severity in severities:
            transform = transform_dict[name](severity=float(levels[severity - 1]), im_size=n)
            results, fields = [], []
            for image in images:
                parameters = transform.sample_parameters()
                fields.append(published_fields(name, parameters, n))
                results.append(transform.transform(image, **parameters))
            out[f"{name}/{severity}/out"] = np.stack(results)
            for field in fields[0]:
                out[f"{name}/{severity}/{field}"] = np.stack([one[field] for one in fields])
    np.savez_compressed(target, **out)


if __name__ == "__main__":
    main(sys.argv[1])
