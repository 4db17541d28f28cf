"""The pages a reader lands on: their links lead somewhere, their examples are filled in."""

from __future__ import annotations

import re

import pytest

from tests.support import ROOT

SKIPPED = {".venv", "build", "data", "runs", "node_modules"}
PAGES = [path for path in sorted(ROOT.rglob("*.md")) if not SKIPPED & set(path.relative_to(ROOT).parts)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_no_placeholder_is_left(page):
    text = page.read_text()
    assert "@@" not in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_code_folder_says_what_it_is_for():
    folders = {
        path.parent
        for top in ("fastreg", "kernels", "pipelines", "cli", "benchmarks")
        for path in (ROOT / top).rglob("__init__.py")
    }
    missing = [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "README.md").is_file()]
    assert missing == []
