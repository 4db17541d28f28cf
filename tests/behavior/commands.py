"""Cases of the command line: training runs, their scorecards, and folders of corrupted images."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from digests import Case, digest, file_digests
from pixels import Skip, frost
from settings import scorecard
from tiny import fastreg, write_cifar, write_folders
from torch import Tensor

_TEMPORARY = tempfile.TemporaryDirectory()
WORK = Path(_TEMPORARY.name)

FOLDERS = "imagenet --data-dir imagenet --loader folder --size 32 -j 1 --epochs 2 --lr 0.005 --device cpu"
CIFAR = "cifar100 --data-dir cifar100 -j 1 --epochs 2 --lr 0.01 --device cpu -b 8"
AVERAGED = "--model-ema-decay 0.9 -b 4 --grad-accum-steps 2"
RUNS = {
    "mixup": f"{FOLDERS} --reg mixup --ls 0.1 -b 8",
    "mixup-averaged": f"{FOLDERS} --reg mixup --ls 0.1 {AVERAGED} --color-jitter 0.4 --lighting 0.1 --scope sample",
    "cutmix-shakedrop": f"{FOLDERS} --reg cutmix+shakedrop -b 8",
    "cutmix-shakedrop-averaged": f"{FOLDERS} --reg cutmix+shakedrop {AVERAGED} --clip-grad 1 --seed 7",
    "adversarial": f"{FOLDERS} --reg adversarial --ls 0.1 -b 8",
    "adversarial-averaged": f"{FOLDERS} --reg adversarial {AVERAGED}",
    "growing": f"{FOLDERS} --reg cutout -b 8 --min-size 16 --size-ramp 0,1 --sched linear --blurpool",
    "cifarnet": f"{CIFAR} --recipe fast/cifar100/cifarnet --mixup-off-epoch 1 --reg mixup+alternating_flip",
    "cifar-stem": f"{CIFAR} --reg alp --opt sgd --no-nesterov --sched step --milestones 0.5 --loader resident",
}
TIMES = ("images_per_second", "data_wait", "seconds")
PATHS = ("data_dir", "output", "name")
EVALUATED = "clean,fgsm,pgd,occlusion,imagenet-c,calibration,confidence"
TINY = "--size 32 --constants tiny64"
SOME = "gaussian_noise,glass_blur,snow,jpeg_compression,saturate"


def cases() -> Iterator[tuple[str, Callable[[Case], None]]]:
    for name in RUNS:
        yield f"train/{name}", partial(trained, name)
    yield "resume/mixup-averaged", resumed
    yield "eval/mixup", evaluated
    yield "eval/cifarnet", evaluated_cifar
    yield "corrupt_command/folders", corrupted_folders
    yield "corrupt_command/cifar", corrupted_cifar
    yield "corrupt_command/frost", corrupted_frost
    yield "data_prepare", prepared


@cache
def data() -> Path:
    write_folders(WORK / "imagenet")
    write_cifar(WORK / "cifar100")
    return WORK


@cache
def run(name: str) -> Path:
    """The folder of a finished run."""
    fastreg("train", *RUNS[name].split(), "--output", "runs", "--name", name, cwd=data())
    return WORK / "runs" / name


def trained(name: str, case: Case) -> None:
    folder = run(name)
    case.portable["files"] = dict.fromkeys(sorted(path.name for path in folder.iterdir() if path.name[0] != "."), True)
    case.portable["data"] = digest(file_digests(WORK / RUNS[name].split()[0]))
    config = json.loads((folder / "config.json").read_text())
    case.portable["config"] = {key: value for key, value in config.items() if key not in PATHS}
    case.portable["environment"] = dict.fromkeys(json.loads((folder / "environment.json").read_text()), True)
    log(folder, case)
    for file in ("last.pt", "best.pt"):
        checkpoint(folder / file, config, case)


def log(folder: Path, case: Case) -> None:
    """The rows without durations; the columns of the tables, and whether they have the rows' figures."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    case.portable["log"] = {row["kind"]: dict.fromkeys(row, True) for row in rows}
    case.local["log"] = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    for kind, file in (("step", "log.csv"), ("epoch", "epochs.csv")):
        columns, *lines = ((folder / file).read_text()).splitlines()
        own = [row for row in rows if row["kind"] == kind]
        expected = [",".join(str(row.get(column, "")) for column in columns.split(",")) for row in own]
        case.portable[file] = dict.fromkeys(columns.split(","), True) | {"has the rows of log.jsonl": lines == expected}


def checkpoint(path: Path, config: dict[str, Any], case: Case) -> None:
    state = torch.load(path, map_location="cpu", weights_only=True)
    names = {key: [[name, *_shape(value)] for name, value in _flat(values)] for key, values in state.items()}
    del names["config"]
    case.portable[path.name] = {key: digest(value) for key, value in names.items()} | {"format": state["format"]}
    case.portable[f"{path.name} has config.json"] = json.loads(json.dumps(state["config"])) == config
    case.local[path.name] = {key: digest(values) for key, values in state.items() if key not in ("config", "format")}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(inner, f"{name}/{key}")
    else:
        yield name, value


def _shape(value: Any) -> list[Any]:
    return [str(value.dtype), *value.shape] if isinstance(value, Tensor) else [type(value).__name__]


def resumed(case: Case) -> None:
    """A third epoch of a finished run, which changes the run's schedule."""
    folder = Path(shutil.copytree(run("mixup-averaged"), WORK / "again" / "mixup-averaged"))
    words = "train imagenet --data-dir imagenet --epochs 3 --allow-changes --resume"
    fastreg(*words.split(), folder, cwd=WORK)
    log(folder, case)
    checkpoint(folder / "last.pt", json.loads((folder / "config.json").read_text()), case)


def evaluated(case: Case) -> None:
    """A run's scorecard with generated corruptions, and with the same corruptions read from files."""
    folder = run("mixup")
    words = f"--suite {EVALUATED} --data-dir imagenet {TINY} --device cpu -b 5 -j 1 --corruptions {SOME}"
    fastreg("eval", folder, *words.split(), cwd=WORK)
    scorecard(json.loads((folder / "scorecard.json").read_text()), case)
    made = corrupted("imagenet", "folders", f"--corruption {SOME} {TINY} --severity 1,3")
    out = WORK / "from-files"
    fastreg("eval", folder, *words.split(), "--imagenet-c-dir", made, "--seed", 5, "--out", out, cwd=WORK)
    scorecard(json.loads((out / "scorecard.json").read_text()), case, "files")


def evaluated_cifar(case: Case) -> None:
    folder = run("cifarnet")
    words = f"--suite {EVALUATED.replace('imagenet-c', 'cifar-c')} --data-dir cifar100 --device cpu --no-clip"
    fastreg("eval", folder, *words.split(), "--corruptions", "fog,spatter", cwd=WORK)
    scorecard(json.loads((folder / "scorecard.json").read_text()), case)


@cache
def corrupted(source: str, target: str, words: str) -> Path:
    fastreg("corrupt", data() / source, WORK / "corrupted" / target, "-j", 1, *words.split(), cwd=WORK)
    return WORK / "corrupted" / target


def written(folder: Path, case: Case) -> None:
    """The files' bytes, and corrupted.json without versions and hardware."""
    content = json.loads((folder / "corrupted.json").read_text())
    case.portable["keys"] = dict.fromkeys(content, True)
    case.portable["settings"] = {key: value for key, value in content["settings"].items() if key != "fastreg"}
    case.portable["parts"] = content["parts"]
    files = {name: value for name, value in file_digests(folder).items() if name != "corrupted.json"}
    case.portable["files"] = files if len(files) < 40 else {"number": len(files), "all": digest(files)}


def corrupted_folders(case: Case) -> None:
    written(corrupted("imagenet", "folders", f"--corruption {SOME} {TINY} --severity 1,3"), case)


def corrupted_cifar(case: Case) -> None:
    written(corrupted("cifar100", "cifar", "--corruption fog,spatter,motion_blur --seed 9"), case)


def corrupted_frost(case: Case) -> None:
    if not frost():
        raise Skip("no frost images")
    written(corrupted("imagenet", "frost", "--corruption frost --size 64 --severity 2"), case)


def prepared(case: Case) -> None:
    for name, words in (("train", "--quality 90 --jpeg-prob 0.5"), ("val", "--raw 48")):
        file = WORK / f"{name}.beton"
        fastreg(*f"data prepare imagenet --from imagenet --to {file} -j 1".split(), *words.split(), cwd=data())
        case.portable[name] = digest(file.read_bytes())
