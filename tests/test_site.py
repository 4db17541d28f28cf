"""The documentation: named flags and files exist, and the site builds without a warning."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fastreg.cli import load_commands
from fastreg.errors import extra
from fastreg.evaluation import SUITES
from fastreg.methods import METHODS
from tests.support import ROOT, environment, peer

pytestmark = pytest.mark.timeout(900)  # one build of the whole site

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "data", "runs", "build", "dist", "*.egg-info", "__pycache__")


def options(name: str) -> set[str]:
    command = load_commands().commands[name]
    return {word for parameter in command.params for word in (*parameter.opts, *parameter.secondary_opts)}


def table_rows(page: str) -> list[list[str]]:
    rows = [line.strip().strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not set("".join(row)) <= set("-|: ")]


def test_flags_of_the_comparison_tables_exist():
    """A flag in the column of fastreg is one of train, eval or predict; "the same" stands for those of the other."""
    known = options("train") | options("eval") | options("predict")
    checked = 0
    for theirs, ours, _ in table_rows((ROOT / "docs" / "coming-from.md").read_text()):
        text = theirs if ours.startswith("the same") else ""
        for flag in re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", f"{text} {ours}"):
            assert flag in known, f"{theirs} | {ours}"
            checked += 1
    assert checked > 60


class Assets(HTMLParser):
    """Addresses from which a page loads something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        for name in ("src", "href") if tag == "link" and given.get("rel") != "canonical" else ("src",):
            if given.get(name):
                self.found.append(str(given[name]))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package, reason=f"{package} is not installed ({extra('docs')})")
    peer("skimage")
    tree = shutil.copytree(ROOT, tmp_path_factory.mktemp("docs") / "tree", ignore=LEFT_OUT)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=tree, env=environment(PYTHONPATH=str(tree), NO_MKDOCS_2_WARNING="1"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return tree / "build" / "site"


@pytest.mark.slow
def test_the_site_has_a_page_for_each_method_and_names_every_suite(site):
    for name in METHODS:
        text = (site / "methods" / f"{name}.html").read_text()
        assert "Source:" in text or name in ("none", "no_crop_flip"), name
    suites = (site / "suites.html").read_text()
    assert all(f"<code>{name}</code>" in suites for name in SUITES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "room", ["methods", "models", "pipelines", "kernels", "training", "evaluation", "metrics", "report"]
)
def test_every_exported_name_is_documented(room, site):
    """Functions and classes with an anchor of their own, constants with a heading."""
    package = importlib.import_module(f"fastreg.{room}")
    text = (site / "api" / f"fastreg.{room}.html").read_text()
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            anchor = f"{value.__module__}.{value.__qualname__}"
            assert f'id="{anchor}"' in text or f"#{anchor}" in text, name
        else:
            assert re.search(rf"<h2[^>]*><code>{name}</code>", text), name


@pytest.mark.slow
def test_the_site_loads_nothing_from_other_hosts(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assets = Assets()
        assets.feed(page.read_text())
        assert assets.found
        for address in assets.found:
            assert not re.match(r"(https?:)?//", address), f"{page.name} loads {address}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text()), sheet
