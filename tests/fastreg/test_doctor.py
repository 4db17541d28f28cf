"""`fastreg doctor`: what is missing comes with the line that gets it."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path

import pytest
import torch  # noqa: F401  before a test takes find_spec away from it

from fastreg import doctor, errors, runs


def test_extras_are_installed_with_the_pinned_versions_of_a_checkout(tmp_path, monkeypatch):
    checkout = Path(errors.__file__).resolve().parent.parent
    monkeypatch.chdir(checkout)
    assert errors.extra("timm") == "pip install -c constraints.txt -e '.[timm]'"  # a bare one would exchange torch
    monkeypatch.chdir(tmp_path)
    words = shlex.split(errors.extra("timm"))
    assert words == ["pip", "install", "-c", f"{checkout / 'constraints.txt'}", "-e", f"{checkout}[timm]"]
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "fastreg" / "errors.py"))
    assert errors.extra("timm") == 'pip install "fastreg[timm]"'


@pytest.mark.parametrize("error", [RuntimeError("operator torchvision::nms does not exist\n..."), None])
def test_a_torchvision_for_another_torch_is_not_called_fine(error, monkeypatch):
    def load(module):
        if error:
            raise error

    monkeypatch.setattr(importlib, "import_module", load)
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object())
    monkeypatch.setattr(runs, "installed", lambda *packages: dict.fromkeys(packages, "1.2"))
    found = {finding.what: finding for finding in doctor._extras()}
    for package in ("timm", "torchvision"):
        if error:
            assert found[package].found == "1.2, which cannot be imported (operator torchvision::nms does not exist)"
            assert "built for this torch" in found[package].mend
        else:
            assert found[package] == (package, "1.2", "")
    assert found["FFCV"] == ("FFCV", "1.2", "")


@pytest.mark.parametrize(
    ("error", "why"),
    [(ImportError(), "ImportError"), (OSError("libcudart.so.13: not found"), "libcudart.so.13: not found")],
)
def test_doctor_outlives_whatever_an_import_raises(error, why, monkeypatch):
    def load(module):
        raise error

    monkeypatch.setattr(importlib, "import_module", load)
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object())
    monkeypatch.setattr(runs, "installed", lambda *packages: dict.fromkeys(packages, "1.2"))
    found = {finding.what: finding.found for finding in doctor._extras()}
    assert found["timm"] == f"1.2, which cannot be imported ({why})"


def test_missing_extras_are_named_with_their_line(monkeypatch):
    monkeypatch.chdir(Path(errors.__file__).resolve().parent.parent)
    monkeypatch.setattr(runs, "installed", lambda *packages: dict.fromkeys(packages))
    found = {finding.what: finding for finding in doctor._extras()}
    assert found["timm"] == ("timm", "missing", "pip install -c constraints.txt -e '.[timm]'")
    assert "libopencv-dev" in found["FFCV"].mend
