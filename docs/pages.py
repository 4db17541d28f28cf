"""The generated pages of the documentation site: methods, suites, the command line, the API, and the READMEs."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

# page of the site -> file of the checkout
READMES = {
    "training.md": "fastreg/training/README.md",
    "recipes.md": "fastreg/RECIPES.md",
    "loaders.md": "pipelines/README.md",
    "evaluation.md": "fastreg/evaluation/README.md",
    "metrics.md": "fastreg/metrics/README.md",
    "kernels.md": "kernels/README.md",
    "benchmarks.md": "benchmarks/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}
PAGE_OF = {
    **{file: page for page, file in READMES.items()},
    "README.md": "index.md",
    "cli/README.md": "command-line.md",
    "fastreg/methods/README.md": "methods/index.md",
    "kernels/corruptions/README.md": "corruptions.md",
}
TITLES = {"training.md": "Training", "loaders.md": "Data and loaders", "evaluation.md": "Evaluation protocol"}
TITLES |= {"metrics.md": "Metrics", "kernels.md": "Kernels", "benchmarks.md": "Benchmarks"}

SUITE_PAGES = [f"suites/{path.name}" for path in sorted((ROOT / "docs" / "suites").glob("*.md"))]
# suite -> pattern of the cases of `fastreg bench eval` that are its conditions
COSTS = {
    "clean": "clean",
    "calibration": "clean",
    "confidence": "clean",
    "natural": "clean",
    "occlusion": "occlusion",
    "fgsm": "fgsm",
    "pgd": "pgd",
    "autoattack": "autoattack",
    "imagenet-c": r"\w+ 3 jpeg",
    "cifar-c": r"\w+ 3",
    "imagenet-p": r"sequences, \w+",
}

# package -> public names; None: its __all__
API: dict[str, tuple[str, ...] | None] = {
    "fastreg": None,
    "fastreg.methods": None,
    "fastreg.models": None,
    "fastreg.pipelines": None,
    "fastreg.kernels": None,
    "fastreg.training": None,
    "fastreg.evaluation": None,
    "fastreg.metrics": None,
    "fastreg.report": None,
    "fastreg.recipes": ("PAPER", "FAST", "SHORT", "resolve"),
    "fastreg.errors": ("InputError", "RunError"),
}


def all_pages() -> dict[str, str]:
    """Every generated page: its Markdown by its path in the site."""
    readmes = {page: readme(file, page, TITLES.get(page)) for page, file in READMES.items()}
    own = {
        "suites.md": suites(),
        "examples.md": examples(),
        "command-line.md": command_line(),
        "corruptions.md": corruptions(),
    }
    return {**readmes, **own, **method_pages(), **api_pages()}


def readme(file: str, page: str, title: str | None = None) -> str:
    """A Markdown file as a page of the site: links lead to pages of the site, and links to other files become text."""
    text = (ROOT / file).read_text()
    if title:
        text = re.sub(r"\A# .*", f"# {title}", text)

    def link(found: re.Match[str]) -> str:
        label, target = found[1], found[2]
        if target.startswith(("http://", "https://", "#")):
            return found[0]
        path, _, anchor = target.partition("#")
        name = os.path.normpath(os.path.join(os.path.dirname(file), path))
        if name not in PAGE_OF:
            return label
        target_page = os.path.relpath(PAGE_OF[name], os.path.dirname(page) or ".")
        return f"[{label}]({target_page}{'#' + anchor if anchor else ''})"

    text = re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", link, text)
    return re.sub(r"!\[([^\]]*)\]\(([^)\s]+)\)", "", text)


def markdown(docstring: str) -> str:
    """A module docstring as Markdown: indented formulas become code, ``Source:`` and its like bold labels."""
    text = inspect.cleandoc(docstring)
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    blocks = []
    for block in text.split("\n\n"):
        if block.startswith("    "):
            blocks.append("```text\n" + inspect.cleandoc(block) + "\n```")
        else:
            blocks.append(re.sub(r"(^|(?<=\. ))([A-Z][a-z]+): ", r"\n\n**\2:** ", block, flags=re.MULTILINE).strip())
    return "\n\n".join(blocks)


def method_pages() -> dict[str, str]:
    """An overview, and one page per method from the docstring of its module."""
    from fastreg.methods import METHODS, mixup_cutmix

    found = {"methods/index.md": readme("fastreg/methods/README.md", "methods/index.md", "Methods")}
    for name, build in {**METHODS, "mixup+cutmix": mixup_cutmix}.items():
        module: Any = sys.modules[build.__module__]
        lines = [f"# {name}", "", markdown(module.__doc__), ""]
        own = list(inspect.signature(build).parameters.values())[1:]
        if own:
            lines += ["## Parameters", "", "| name | type | default |", "|---|---|---|"]
            lines += [f"| `{p.name}` | `{cell(str(p.annotation))}` | `{p.default!r}` |" for p in own]
        found[f"methods/{name.replace('+', '_')}.md"] = "\n".join(lines) + "\n"
    return found


def api_pages() -> dict[str, str]:
    """One page per public package; functions and classes from their docstrings, constants with their value's names."""
    found: dict[str, str] = {}
    documented: set[str] = set()
    for package in (*(name for name in API if name != "fastreg"), "fastreg"):  # which repeats names of the others
        module = importlib.import_module(package)
        lines = [f"# {package}", "", markdown(module.__doc__ or ""), ""]
        for name in API[package] or module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                address = f"{value.__module__}.{value.__qualname__}"
                known = address in documented
                documented.add(address)
                lines += [f"`{name}`: see [{address}][].", ""] if known else [f"::: {address}", ""]
            elif isinstance(value, dict | tuple | frozenset):
                lines += [f"## `{name}`", "", ", ".join(f"`{one}`" for one in value), ""]
            elif name != "__version__":
                raise TypeError(f"{package}.{name} is a {type(value).__name__}: add its documentation to docs/pages.py")
        found[f"api/{package}.md"] = "\n".join(lines)
    return {f"api/{package}.md": found[f"api/{package}.md"] for package in API}


def suites() -> str:
    """The table of suites, each with its page."""
    from fastreg.evaluation import SUITES

    links = {name: f"[`{name}`](suites/{name}.md)" for name in SUITES if f"suites/{name}.md" in SUITE_PAGES}
    rows = [f"| {links.get(name, f'`{name}`')} | {about} |" for name, about in SUITES.items()]
    head = ["# Suites", "", "`fastreg eval --suite NAME`; several names are joined by commas.", ""]
    return "\n".join([*head, "| suite | measures |", "|---|---|", *rows]) + "\n"


def suite_tables(name: str) -> str:
    """The figures of a suite, and its measured costs from the benchmark records."""
    from fastreg.evaluation.suites import ROWS

    figures = ROWS[name].figures
    lines = ["", "## Figures", "", "| key | heading | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | {figure.heading} | {cell(figure.meaning)} |" for key, figure in figures.items()]
    return "\n".join([*lines, "", "## Measured cost", "", *_costs(name), ""])


def _costs(name: str) -> list[str]:
    """Images per second of the suite's conditions on each recorded machine, as a range."""
    found = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        record = json.loads(path.read_text())
        part = record["suites"].get("eval", {"rows": []})
        own = [row for row in part["rows"] if row["variant"] == "fastreg" and _is_of(name, row["name"])]
        rates = [1e6 * row["images"] / row["us"] for row in own]
        if rates:
            settings, machine = part["settings"], record["machine"]
            low, high = f"{min(rates):,.0f}", f"{max(rates):,.0f}"
            what = (
                f"{settings['model']}, {settings['size']} px, batch {settings['batch_size']}, {settings['precision']}"
            )
            where = f"{machine['name']}, {machine['cores']} cores, {part['date'][:10]}"
            found.append(f"| {where} | {what} | {low if low == high else f'{low} to {high}'} |")
    if not found:
        return ["Not yet measured."]
    return ["| machine | model | images/s of a condition |", "|---|---|---:|", *found]


def _is_of(suite: str, case: str) -> bool:
    return suite in COSTS and re.fullmatch(f"evaluate {COSTS[suite]}", case) is not None


def corruptions() -> str:
    """The corruptions by category with images, the constants, and how exact they are."""
    from fastreg.kernels import CORRUPTION_CATEGORIES, EXTRA_CORRUPTIONS
    from fastreg.kernels.corruptions.constants import CONSTANTS

    lines = [
        "# Corruptions",
        "",
        "Each row shows severities 1 to 5 on one image of 224 px, made when this page was built:",
    ]
    lines += ["`fastreg.kernels.corrupt(images, name, severity)`.", ""]
    for category, names in {**CORRUPTION_CATEGORIES, "extra": EXTRA_CORRUPTIONS}.items():
        lines += [f"## {category.capitalize()}", ""]
        for name in names:
            lines += [
                f"### {name}",
                "",
                f"![{name} at severities 1 to 5](corruptions/{name}.jpg){{ loading=lazy }}",
                "",
            ]
            lines += [f"| constants of `{name}` | 1 | 2 | 3 | 4 | 5 |", "|---|---|---|---|---|---|"]
            for family, rows in CONSTANTS.items():
                lines.append(f"| {family} | " + " | ".join(number(value) for value in rows[name]) + " |")
            lines.append("")
    text = readme("kernels/corruptions/README.md", "corruptions.md")
    return "\n".join(lines) + re.sub(r"\A# .*", "## Details", re.sub(r"^## ", "### ", text, flags=re.MULTILINE))


def number(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(number, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def examples() -> str:
    """The scripts of examples/, each with its docstring in front."""
    lines = [readme("examples/README.md", "examples.md").rstrip(), ""]
    for path in sorted((ROOT / "examples").glob("*.*")):
        if path.suffix in (".py", ".sh", ".sbatch"):
            kind = "python" if path.suffix == ".py" else "bash"
            lines += [f"## {path.name}", "", f"```{kind}", path.read_text().rstrip(), "```", ""]
    return "\n".join(lines)


def command_line() -> str:
    """Every command with its arguments and options; what holds for all of them is in the folder's README."""
    from fastreg.cli import load_commands

    text = readme("cli/README.md", "command-line.md")
    notes = text[text.index("\nExit codes") : text.index("**To add a command**")].strip()
    return "\n".join(["# Command line", "", notes, "", *_command(load_commands(), "fastreg", 2)])


def _command(command: Any, words: str, level: int) -> list[str]:
    lines = ["#" * level + f" {words}", "", cell(command.help or ""), ""]
    if command.params:
        lines += ["| argument or option | value | meaning |", "|---|---|---|"]
    for parameter in command.params:
        names = (
            parameter.opts if parameter.param_type_name == "option" else [parameter.metavar or parameter.name.upper()]
        )
        names = [*names, *parameter.secondary_opts]
        takes = "" if getattr(parameter, "is_flag", False) else parameter.bare_type()
        lines.append(f"| {' '.join(f'`{name}`' for name in names)} | {takes} | {cell(parameter.help or '')} |")
    lines.append("")
    below = getattr(command, "commands", {})
    for name in command.list_commands(None) if below else ():
        lines += _command(below[name], f"{words} {name}", level + 1)
    return lines


def cell(text: str) -> str:
    """Text that may stand in a Markdown table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;").strip()
