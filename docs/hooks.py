"""mkdocs hooks: add the pages that are made from the code, and give the API reader fastreg as one package."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import corruption_images
import pages
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / "build" / "packages"
ROOMS = ("kernels", "pipelines", "cli", "benchmarks")  # top-level folders that are subpackages of fastreg


def on_startup(command: str, dirty: bool) -> None:
    """Gather the package's folders in one place, before mkdocstrings looks for it."""
    copy_packages()


def on_config(config: Any) -> Any:
    """Complete the navigation."""
    sections = {"Methods": pages.method_pages(), "Suites": pages.SUITE_PAGES, "API": pages.api_pages()}
    _complete(config.nav, sections)
    return config


def _complete(nav: list[Any], sections: Mapping[str, Iterable[str]]) -> None:
    """Fill the empty sections of the navigation, also inside of others."""
    for entry in nav:
        for title, below in entry.items() if isinstance(entry, dict) else ():
            if title in sections and not below:
                entry[title] = list(sections[title])
            elif isinstance(below, list):
                _complete(below, sections)


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and images."""
    for path, content in {**pages.all_pages(), **corruption_images.images()}.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """A suite's page ends with its figures and its measured costs."""
    folder, _, name = page.file.src_uri.rpartition("/")
    return markdown + pages.suite_tables(name.removesuffix(".md")) if folder == "suites" else markdown


def copy_packages() -> None:
    """Copy the sources to ``build/packages/fastreg``: griffe reads one package from disk, and runs no code."""
    shutil.rmtree(PACKAGES, ignore_errors=True)
    package = PACKAGES / "fastreg"
    for folder, target in {"fastreg": package, **{room: package / room for room in ROOMS}}.items():
        for path in (ROOT / folder).rglob("*.py"):
            copy = target / path.relative_to(ROOT / folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
