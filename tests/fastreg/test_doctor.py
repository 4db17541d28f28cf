"""`fastreg doctor`: a missing package or data set is printed with the command that installs it."""

from __future__ import annotations

import importlib
import importlib.metadata
import shlex
from pathlib import Path

import pytest
import torch  # noqa: F401  imported before a test takes find_spec away from it

from fastreg import doctor, environment, errors
from fastreg.version import DISTRIBUTION, __version__

ROOT = Path(errors.__file__).resolve().parent.parent


@pytest.fixture
def everything_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object())
    monkeypatch.setattr(doctor, "installed", lambda *packages: dict.fromkeys(packages, "1.2"))


def test_extras_are_installed_with_the_pinned_versions_of_a_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert errors.extra("timm") == "pip install -c constraints.txt -e '.[timm]'"  # a bare one would exchange torch
    monkeypatch.chdir(tmp_path)
    words = shlex.split(errors.extra("timm"))
    assert words == ["pip", "install", "-c", f"{ROOT / 'constraints.txt'}", "-e", f"{ROOT}[timm]"]
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "fastreg" / "errors.py"))
    assert errors.extra("timm") == 'pip install "fastreg-imagenet[timm]"'


@pytest.mark.parametrize("error", [RuntimeError("operator torchvision::nms does not exist\n..."), None])
def test_a_torchvision_for_another_torch_is_not_called_fine(error, everything_installed, monkeypatch):
    def load(module):
        if error:
            raise error

    monkeypatch.setattr(importlib, "import_module", load)
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
def test_doctor_continues_after_any_error_of_an_import(error, why, everything_installed, monkeypatch):
    def load(module):
        raise error

    monkeypatch.setattr(importlib, "import_module", load)
    found = {finding.what: finding.found for finding in doctor._extras()}
    assert found["timm"] == f"1.2, which cannot be imported ({why})"


def test_missing_extras_are_named_with_their_line(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(doctor, "installed", lambda *packages: dict.fromkeys(packages))
    found = {finding.what: finding for finding in doctor._extras()}
    assert found["timm"] == ("timm", "missing", "pip install -c constraints.txt -e '.[timm]'")
    assert "libopencv-dev" in found["FFCV"].mend


def test_the_version_is_looked_up_under_the_name_of_the_distribution(monkeypatch):
    asked = []
    monkeypatch.setattr(environment, "version", lambda name: asked.append(name) or "7.0")
    assert environment.installed("fastreg", "torch") == {"fastreg": "7.0", "torch": "7.0"}
    assert asked == [DISTRIBUTION, "torch"] == ["fastreg-imagenet", "torch"]


def test_a_checkout_that_is_not_installed_knows_its_version(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment, "version", missing)
    assert environment.installed("fastreg", "torch") == {"fastreg": __version__, "torch": None}


class Distribution:
    """An installed package for importlib.metadata: its version and its folder."""

    version = "1.2"

    def __init__(self, folder: Path) -> None:
        self.locate_file = folder.joinpath


@pytest.mark.parametrize(("installed_below", "reported"), [("site-packages", True), ("", False)])
def test_another_package_of_the_same_import_name_is_reported(installed_below, reported, monkeypatch):
    """fastreg on PyPI is another project; the build files of a checkout, of whatever name, are not."""
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution(ROOT / installed_below))
    found = {finding.what: finding for finding in doctor._package()}
    assert found["fastreg"].found == f"{__version__} (checkout at {ROOT})"
    assert ("other fastreg" in found) == reported
    if reported:
        assert "1.2" in found["other fastreg"].found
        assert found["other fastreg"].mend.startswith("pip uninstall fastreg, ")
