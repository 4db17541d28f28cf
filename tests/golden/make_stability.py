"""Write ``stability.json``: flip probabilities and top-5 distances by the published test code, on random logits.

    python tests/golden/make_stability.py FILE

FILE is ``ImageNet-P/test.py`` of github.com/hendrycks/robustness, whose functions run here as they stand. Needs scipy.
"""

import json
import sys
import types
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

# name -> sequences, frames, classes, levels of the mean and of the changes
CASES = {
    "ties": (6, 9, 9, 4, 2),
    "many classes": (5, 31, 1000, 4000, 20),
    "five classes": (3, 6, 5, 100, 30),
    "constant": (2, 4, 7, 1, 1),
}


def logits(name):
    """float64 [V, F, K], whole numbers; the frames of a sequence are similar."""
    videos, frames, classes, levels, changes = CASES[name]
    rng = np.random.default_rng(len(name))
    mean = rng.integers(0, levels, (videos, 1, classes))
    return (mean + rng.integers(0, changes, (videos, frames, classes))).astype(float)


def main(file, target=Path(__file__).parent / "stability.json"):
    text = Path(file).read_text()
    source = text[text.index("identity = np.asarray") : text.index("# /////////////// Get Results")]
    args = types.SimpleNamespace(perturbation="brightness", difficulty=1)
    scope = {"np": np, "args": args}
    exec(source, scope)
    out = {}
    for name in CASES:
        x = logits(name)
        predictions = list(x.argmax(2))
        ranks = np.array([[np.uint16(rankdata(-frame, method="ordinal")) for frame in video] for video in x])
        for reference, noise in (("previous", False), ("first", True)):
            flips = scope["flip_prob"](predictions, noise_perturbation=noise)
            distance = scope["ranking_dist"](ranks, noise_perturbation=noise, mode="top5")
            out[f"{name}, {reference}"] = {"flips": float(flips), "top5": float(distance)}
    target.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
