"""mkdocs hooks: add the pages that are made from the code, and give the API reader fastreg as one package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import corruption_images
import pages
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / "build" / "packages"
ROOMS = ("kernels", "pipelines", "cli", "benchmarks")  # top-level folders that are subpackages of fastreg


def on_config(config: Any) -> Any:
    """Link the package's folders to one place, and complete the navigation."""
    link_packages()
    sections = {"Methods": pages.method_pages(), "API": pages.api_pages()}
    for entry in config.nav:
        for title in sections.keys() & entry.keys():
            entry[title] = list(sections[title])
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and images."""
    for path, content in {**pages.all_pages(), **corruption_images.images()}.items():
        files.append(File.generated(config, path, content=content))
    return files


def link_packages() -> None:
    """Make ``build/packages/fastreg`` of links, since griffe reads packages from disk and runs no code."""
    shutil.rmtree(PACKAGES, ignore_errors=True)
    package = PACKAGES / "fastreg"
    package.mkdir(parents=True)
    for path in (ROOT / "fastreg").iterdir():
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)
    for room in ROOMS:
        (package / room).symlink_to(ROOT / room)
