"""The Markdown files of the checkout: links lead to files, named files exist, and versions agree."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from fastreg.benchmarks.record import Row
from fastreg.benchmarks.report.terminal import ratio_of
from fastreg.version import __version__
from tests.support import ROOT

SKIPPED = {".venv", "build", "data", "runs", "docs"}  # the links of docs are checked when the site is built
FILES = [path for path in sorted(ROOT.rglob("*.md")) if not SKIPPED & set(path.relative_to(ROOT).parts)]


@pytest.mark.parametrize("readme", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_no_placeholder_is_left(readme):
    text = readme.read_text()
    assert "@@" not in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith(("http://", "https://")):
            assert (readme.parent / target).exists(), f"{readme.name} links to {target}"


def test_the_files_that_the_contribution_guide_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = {path for path in re.findall(r"`([\w.-]+/[\w./-]*)`", text) if "NAME" not in path}
    named -= {"build/site"}  # written by make docs
    assert len(named) > 20
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_the_version_is_the_same_everywhere_and_changes_are_collected():
    citation = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert citation
    assert citation[1] == __version__
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_templates_and_workflows_can_be_read(path):
    found = yaml.safe_load(path.read_text())
    if "workflows" in path.parts:
        commands = [step.get("run") for job in found["jobs"].values() for step in job["steps"]]
        assert ".ci/run" in commands
    elif path.name != "config.yml":
        assert {"name", "description", "body"} <= found.keys()
        ids = [field["id"] for field in found["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 2


def test_every_hook_before_a_commit_runs_a_tool_of_the_checkout():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    commands = [hook["entry"].split() for hook in hooks]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format", "mypy"]
    assert all(words[0] == ".venv/bin/ruff" or words == ["make", "types"] for words in commands)
    assert re.search(r"^types:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_figures_of_the_readme_are_those_of_the_record_and_of_the_table_of_corruptions():
    text = (ROOT / "README.md").read_text()
    record = json.loads((ROOT / "benchmarks" / "results" / "intel-xeon-2-cores.json").read_text())
    suite = record["suites"]["throughput"]
    rows = {row["variant"]: Row(**row) for row in suite["rows"] if row["name"] == "step mixup"}
    ours = rows["fastreg"]
    rates = {name: f"{ours.images_per_second / ratio_of(row, ours):.0f}" for name, row in rows.items()}
    settings = suite["settings"]
    assert (settings["model"], settings["size"], settings["batch_size"]) == ("resnet18", 64, 32)
    expected = "99 images/s; timm's loop 101, torchvision's 110"
    assert f"ResNet-18, Mixup, 64 px, batch 32: {expected}" in text
    assert re.findall(r"\d+", expected) == [rates["fastreg"], rates["timm loop"], rates["torchvision loop"]]
    machine = record["machine"]
    assert f"{machine['name']}, {machine['cores']} cores, {suite['date'][:10]}" in text

    readme = (ROOT / "kernels" / "corruptions" / "README.md").read_text()
    rows = re.findall(r"^\| (\w+) \| [^|]+ \| (0|\d+, [\d.]+ %) \|", readme, re.MULTILINE)
    other = [float(cell.split(", ")[1].rstrip(" %")) for _, cell in rows if cell != "0"]
    assert f"{len(rows) - len(other)} of {len(rows)} equal to the bit; in the other {len(other)} at most" in text
    assert re.search(rf"at most {max(other):.3f} % of the values differ, by one level", text)
    assert all(cell == "0" or cell.startswith("1, ") for _, cell in rows)


def test_every_code_folder_has_a_readme():
    folders = {
        path.parent
        for top in ("fastreg", "kernels", "pipelines", "cli", "benchmarks")
        for path in (ROOT / top).rglob("__init__.py")
    }
    missing = [str(folder.relative_to(ROOT)) for folder in folders if not (folder / "README.md").is_file()]
    assert missing == []
