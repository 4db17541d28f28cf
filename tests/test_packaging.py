"""Installing: a wheel holds only ``fastreg`` and runs alone; an editable install and a bare checkout import alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Callable
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


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(source), "-w", str(folder))
    return next(folder.glob("*.whl"))


@pytest.fixture
def install(wheel, tmp_path) -> Callable[..., Path]:
    """A new virtual environment that holds the wheel: ``install(dependencies)`` gives its Python.

    The dependencies are this environment's own packages, read after the new environment's.
    """

    def run(dependencies: bool) -> Path:
        venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
        python = tmp_path / "venv" / "bin" / "python"
        pip("--python", str(python), "install", str(wheel))
        if dependencies:
            paths = [path for path in sys.path if path.endswith("site-packages")]
            site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
            (site / "dependencies.pth").write_text("\n".join(paths))
        return python

    return run


def pip(*words: str) -> None:
    """Run pip away from the checkout, whose ``*.egg-info`` it would take for an installed fastreg."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--no-deps", "--no-build-isolation", "--disable-pip-version-check"],
        cwd=os.sep,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without variables that point to this checkout or to data."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "FASTREG_DATA")} | more


def where(code: str, cwd: Path, *flags: str, python: Path = Path(sys.executable), **env: str) -> str:
    """The output of ``code``, run without this checkout on the path."""
    done = subprocess.run(
        [str(python), *flags, "-c", code],
        cwd=cwd,
        env=clean_environment(**env),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_package_is_listed():
    """Packages are listed by hand, since they are in several top-level folders."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {"fastreg"}
    for top in ("fastreg", "kernels", "pipelines", "cli", "benchmarks"):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join(parts if parts[0] == "fastreg" else ("fastreg", *parts)))
    assert set(settings["packages"]) == found


def test_wheel_holds_only_fastreg(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"fastreg", f"fastreg_imagenet-{__version__}.dist-info"}
    for folder in ("kernels", "pipelines", "cli", "benchmarks"):
        assert f"fastreg/{folder}/__init__.py" in names
    for path in [*(ROOT / "fastreg").rglob("*.json"), *(ROOT / "fastreg").rglob("*.html"), ROOT / "fastreg/py.typed"]:
        assert path.relative_to(ROOT).as_posix() in names


def test_wheel_installs_the_command_under_its_import_name(install, tmp_path):
    python = install(dependencies=True)
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    code = f"import importlib; [print(importlib.import_module(m).__file__) for m in {MODULES}]"
    files = where(code, tmp_path, python=python).split()
    assert len(files) == len(MODULES)
    assert all(file.startswith(str(site / "fastreg")) for file in files)
    code = "from fastreg.environment import environment; print(environment()['packages']['fastreg'])"
    assert where(code, tmp_path, python=python).strip() == version(site) == __version__
    code = "from fastreg.errors import extra; print(extra('dali'))"
    assert where(code, tmp_path, python=python).strip() == 'pip install "fastreg-imagenet[dali]"'


def version(site: Path) -> str:
    (metadata,) = site.glob("fastreg_imagenet-*.dist-info/METADATA")
    fields = dict(line.split(": ", 1) for line in metadata.read_text().split("\n\n")[0].splitlines())
    assert fields["Name"] == "fastreg-imagenet"
    return fields["Version"]


@pytest.mark.slow
def test_doctor_of_the_wheel_names_its_own_distribution(install, tmp_path):
    python = install(dependencies=True)
    done = subprocess.run(
        [str(python.with_name("fastreg")), "doctor"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert f"{'fastreg':20} {__version__} (distribution fastreg-imagenet)" in lines
    assert any(line.startswith("torch ") and "missing" not in line for line in lines)
    assert f"{'imagenet':20} missing" in lines
    installs = [line.partition("-> ")[2] for line in lines if "pip install" in line and "[" in line]
    assert all('pip install "fastreg-imagenet[' in line for line in installs), installs


SNIPPET = """
from typing import assert_type

from fastreg import Plan, evaluate, train
from fastreg.errors import InputError
from fastreg.methods import Method, create_method
from fastreg.metrics import expected_calibration_error

method = create_method("cutmix+shakedrop", seed=1, scope="sample")
assert_type(method, Method)
assert_type(expected_calibration_error([0.5], [True]), float)
try:
    evaluate(method)  # WRONG
except InputError as error:
    print(error.args, train)
create_method(3)  # WRONG
Plan(color=None)  # WRONG
"""


@pytest.mark.slow
def test_a_users_code_is_checked_against_the_annotations_of_the_wheel(install, tmp_path):
    """py.typed makes mypy read them; each line marked WRONG must be an error, and no other."""
    python = install(dependencies=False)
    script = tmp_path / "snippet.py"
    script.write_text(SNIPPET)
    words = ["--python-executable", str(python), "--cache-dir", str(tmp_path / "cache"), "--no-error-summary"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *words, "--config-file", os.devnull, str(script)],
        cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    found = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    expected = {number for number, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# WRONG")}
    assert found == expected, done.stdout + done.stderr


@pytest.mark.slow
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


def test_help_and_dir_name_the_two_main_functions():
    import pydoc

    import fastreg

    assert {"train", "evaluate", "Batch", "Plan", "Targets", "methods", "models", "kernels"} <= set(dir(fastreg))
    text = pydoc.plain(pydoc.render_doc(fastreg))
    for name in ("train", "evaluate"):
        assert f"\n    {name}(" in text
    assert fastreg.methods.create_method is fastreg.methods.create
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = fastreg.trian
