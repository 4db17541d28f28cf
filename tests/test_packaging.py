"""What gets installed: a wheel holds only ``fastreg``; an editable install and the checkout itself import alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from fastreg.version import __version__
from tests.support import ROOT

LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", "data", "runs", "build", "dist", "*.egg-info", "__pycache__")
MODULES = ("fastreg.kernels", "fastreg.pipelines", "fastreg.cli", "fastreg.benchmarks", "fastreg.training")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the tree, so that building leaves nothing in the checkout."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "tree", ignore=LEFT_BEHIND))


def pip(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--no-deps", "--no-build-isolation", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def where(code: str, cwd: Path, *flags: str, **env: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], cwd=cwd, env={**clean, **env}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_package_is_listed():
    """Packages are listed by hand, since they lie in several top-level folders."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {"fastreg"}
    for top in ("fastreg", "kernels", "pipelines", "cli", "benchmarks"):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join(parts if parts[0] == "fastreg" else ("fastreg", *parts)))
    assert set(settings["packages"]) == found


def test_wheel_holds_only_fastreg_and_runs(source, tmp_path):
    pip("wheel", str(source), "-w", str(tmp_path))
    wheel = next(tmp_path.glob("fastreg-*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"fastreg", f"fastreg-{__version__}.dist-info"}
    for folder in ("kernels", "pipelines", "cli", "benchmarks"):
        assert f"fastreg/{folder}/__init__.py" in names
    for path in [*(ROOT / "fastreg").rglob("*.json"), *(ROOT / "fastreg").rglob("*.html")]:
        assert path.relative_to(ROOT).as_posix() in names
    pip("install", str(wheel), "--target", str(tmp_path / "site"))
    code = f"import fastreg, importlib; [print(importlib.import_module(m).__file__) for m in {MODULES}]"
    files = where(code, tmp_path, PYTHONPATH=str(tmp_path / "site")).split()
    assert len(files) == len(MODULES)
    assert all(file.startswith(str(tmp_path / "site" / "fastreg")) for file in files)


def test_editable_install_imports_the_tree(source, tmp_path):
    """Without the environment's own .pth files, since an editable fastreg there has a finder of the same name."""
    pip("install", "-e", str(source), "--target", str(tmp_path / "site"))
    packages = [path for path in sys.path if path.endswith("site-packages")]
    code = (
        f"import site, sys; site.addsitedir({str(tmp_path / 'site')!r}); sys.path += {packages}; import importlib\n"
        f"[print(importlib.import_module(m).__file__) for m in {MODULES}]"
    )
    files = where(code, tmp_path, "-S").split()
    assert len(files) == len(MODULES)
    assert all(file.startswith(str(source)) for file in files), files


def test_checkout_imports_with_nothing_installed(tmp_path):
    code = f"import fastreg, importlib; [print(importlib.import_module(m).__file__) for m in {MODULES}]"
    files = where(code, tmp_path, PYTHONPATH=str(ROOT)).split()
    assert all(file.startswith(str(ROOT)) for file in files)
