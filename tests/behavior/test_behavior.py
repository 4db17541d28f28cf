"""This checkout behaves as commit 25d715e: some cases of record.py, compared with the recording 25d715e.json."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
OLD = HERE / "25d715e.json"
CASES = {
    "library": "draws,augment,steps,corrupt/names,corrupt/cifar32,corrupt/tiny64,fields,jpeg,loss,fgsm,recipes,"
    "datasets,metrics,evaluate,models/resnet18,models/cifarnet",
    "commands": "train/mixup-averaged,train/cifarnet,eval/cifarnet,corrupt_command",
}
WITHOUT_IMAGES = ("draws", "recipes", "corrupt/names")  # cases that do not depend on the versions of packages


@pytest.fixture(scope="module")
def record() -> Any:
    spec = importlib.util.spec_from_file_location("behavior_record", HERE / "record.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def old() -> dict[str, Any]:
    return json.loads(OLD.read_text())


@pytest.fixture(scope="module", params=["library", pytest.param("commands", marks=pytest.mark.slow)])
def found(request, tmp_path_factory) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(recording of this checkout, beginnings of its cases)"""
    out = tmp_path_factory.mktemp("behavior") / "found.json"
    words = [sys.executable, str(HERE / "record.py"), "--out", str(out), "--only", CASES[request.param]]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text()), tuple(CASES[request.param].split(","))


@pytest.mark.slow
def test_portable_values(record, old, found):
    """Settings, names, integers and uint8 images are those of 25d715e on every CPU."""
    new, cases = found
    if new["machine"]["packages"] != old["machine"]["packages"]:
        cases = tuple(case for case in cases if case in WITHOUT_IMAGES)
        if not cases:
            pytest.skip(f"recorded with {old['machine']['packages']}, not {new['machine']['packages']}")
    lines, failed = record.compare({**old, "local": {}}, new, cases)
    assert not failed, "\n".join(lines)


def test_local_values(record, old, found):
    """Floating-point results are those of 25d715e, if the CPU model and versions are those of the recording."""
    new, cases = found
    if new["machine"] != old["machine"]:
        pytest.skip(f"recorded on {old['machine']}, not {new['machine']}: use record.py to compare two checkouts")
    lines, failed = record.compare({**old, "portable": {}}, new, cases)
    assert not failed, "\n".join(lines)


def test_every_case_is_recorded(old, found):
    new, _ = found
    assert not new["failed"]
    for table in ("portable", "local"):
        assert new[table].keys() <= old[table].keys() | old["skipped"].keys()


def test_a_difference_is_found(record, old):
    """A changed digest, a missing value, a missing case and a failed case count; a further value does not."""
    new = deepcopy(old)
    new["portable"]["draws/mixup"]["further"] = "value"
    assert record.compare(old, new)[1] == 0
    new["portable"]["draws/mixup"]["cifar100 batch"] = "0"
    row = new["local"]["train/cifarnet"]["log"][2]
    row["loss"] = math.nextafter(row["loss"], 2)
    del new["portable"]["train/cifarnet"]["config"]["lr"]
    del new["local"]["fgsm_step"]
    new["failed"]["loss"] = "ValueError"
    lines, failed = record.compare(old, new)
    assert failed == 5, lines
    assert "train/cifarnet: config/lr" in "\n".join(lines)
