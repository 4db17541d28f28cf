"""Helpers of the report tests: run folders with figures given by formulas, and a reader of the HTML report."""

import html.parser
import json

from fastreg.evaluation import Scorecard
from fastreg.files import write_json
from fastreg.metrics.corruption import NAMES
from fastreg.report import paper_rows
from fastreg.report.paper_comparison import N_TRAIN, recipe
from fastreg.training.config import to_dict
from fastreg.training.recipe_table import recipe_config

BINS = {
    "low": [b / 20 for b in range(20)],
    "high": [(b + 1) / 20 for b in range(20)],
    "count": [0] * 10 + [10] * 10,
    "confidence": [None] * 10 + [(b + 0.5) / 20 for b in range(10, 20)],
    "accuracy": [None] * 10 + [b / 20 for b in range(10, 20)],
}


def paper_settings(dataset, reg="none", ls=0.0):
    """config.json of the paper's row with these methods; without such a row, the baseline's settings."""
    name = recipe({"dataset": dataset, "reg": reg, "ls": ls}) or f"paper/{dataset}/baseline"
    settings = to_dict(recipe_config(name)) | {"reg": reg, "ls": ls}
    settings |= {"batch_size": settings["global_batch"], "precision_used": "fp32", "n_train": N_TRAIN[dataset]}
    return settings | {"loader_used": "folder" if dataset == "imagenet" else "resident"}


def make_run(
    root,
    name,
    *,
    sample=False,
    dataset="imagenet",
    skip=(),
    data=None,
    settings=None,
    decoder="folder",
    precision="fp32",
    **config,
):
    """A run folder with a scorecard, a config and a log, whose errors are given by formulas.

    The scorecard is of the whole test set of ``dataset`` (of 100 images with ``sample``); ``data`` and ``settings``
    change its data and the settings of its suites, ``config`` the training settings.
    """
    n, classes, size = paper_rows.MEASURED[dataset]
    n = (data or {}).get("n", 100 if sample else n)
    clean = {"n": n, "nonfinite": 0, "error": 20.0, "top5_error": 5.0, "nll": 0.9, "ece": 3.0, "brier": 30.0}
    clean |= {"confidence": 77.0, "bins": BINS, "seconds": 1.0}
    one = {"n": n, "nonfinite": 0, "error": 80.0, "seconds": 1.0}
    rows = {
        f"{c}/{s}": {"n": n, "nonfinite": 0, "error": 30.0 + i + 5 * s, "seconds": 1.0}
        for i, c in enumerate(NAMES)
        for s in range(1, 6)
        if c not in skip
    }
    suite = "imagenet-c" if dataset == "imagenet" else "cifar-c"
    made = {"from": "generated", "fidelity": "dataset"}
    made["constants"] = "imagenet224" if dataset == "imagenet" else "cifar32"
    suites = {
        "clean": {"settings": {}, "wanted": ["clean"], "results": {"clean": clean}},
        "fgsm": {"settings": {"epsilon": 8 / 255}, "wanted": ["fgsm"], "results": {"fgsm": one}},
        "occlusion": {"settings": {"side": 112}, "wanted": ["occlusion"], "results": {"occlusion": one}},
        suite: {"settings": made, "wanted": list(rows), "results": rows},
    }
    if dataset == "cifar100":
        histogram = [0] * 20 + [5] * 20
        ood = {"n": n, "detection_error": 20.0, "auroc": 85.0, "fpr95": 40.0, "nonfinite": 0, "seconds": 1.0}
        ood |= {"histogram_in": histogram, "histogram_out": histogram[::-1]}
        suites["ood"] = {"settings": {}, "wanted": ["uniform"], "results": {"uniform": ood}}
    for name_of, changed in (settings or {}).items():
        suites[name_of]["settings"] |= changed
    described = {"name": dataset, "classes": classes, "sample": sample, "n": n, "split": "val", "size": size}
    card = Scorecard(
        model={"name": "resnet50", "digest": "0" * 12},
        data={**described, "fingerprint": "100 images <&>", **(data or {})},
        settings={"precision": precision, "seed": 0, "loader": decoder},
        suites=suites,
        provenance={"gpu": None, "packages": {"torch": "2.13.0"}},
    )
    folder = root / name
    folder.mkdir(parents=True)
    card.save(folder / "scorecard.json")
    methods = {key: config[key] for key in ("reg", "ls") if key in config}
    trained = {**paper_settings(dataset, **methods), "data_dir": str(root / "absent"), **config}
    write_json(folder / "config.json", trained)
    log = [
        {"kind": "epoch", "epoch": e, "step": e, "train_loss": 2 - e / 9, "val_top1_error": 50 - e} for e in range(5)
    ]
    last = config.get("epochs", 300) - 1
    log.append({"kind": "epoch", "epoch": last, "step": last, "train_loss": 1.4, "val_top1_error": 47.5})
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    return folder


class Tags(html.parser.HTMLParser):
    """Every tag balanced, every address inside the page."""

    VOID = ("meta", "link", "img", "br", "path", "rect", "circle")

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_report(path):
    tags = Tags()
    tags.feed(path.read_text())
    assert tags.open == []
    return tags, " ".join(tags.text)
