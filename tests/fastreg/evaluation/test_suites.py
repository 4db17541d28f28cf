"""The table of suites, and one more suite made as the README describes: a module and a row."""

import ast
import json
import re
import shutil
import subprocess
import sys

import pytest

from fastreg.evaluation import SUITES, evaluate
from fastreg.evaluation import __main__ as suite_table
from fastreg.evaluation import suites as table
from fastreg.report.figures_table import FIGURES
from tests.fastreg.evaluation.tiny_classifier import tiny_images
from tests.support import ROOT, command, environment, write_tiny_imagenet

README = ROOT / "fastreg" / "evaluation" / "README.md"
MODULE = '''"""A suite of images turned by a quarter."""

from __future__ import annotations

from torch import Tensor

from fastreg.evaluation.classifier import Classifier
from fastreg.evaluation.config import EvalConfig
from fastreg.evaluation.eval_data import EvalData
from fastreg.evaluation.pixel_cache import Pixels
from fastreg.evaluation.types import Condition, SuitePlan


def quarter(classifier: Classifier, batch: Pixels) -> Tensor:
    return classifier.images(batch.images.rot90(1, (1, 2)).contiguous())


def build(eval_data: EvalData, config: EvalConfig) -> SuitePlan:
    return SuitePlan({"degrees": 90}, {"turned": Condition(quarter)})
'''
ROW = """    Suite(
        "turned",
        "images turned by a quarter",
        turned.build,
        figures={"turned_error": Figure("Turned", "top-1 error on turned images")},
    ),
"""


def described(readme):
    return re.findall(r"^\| `([\w-]+)` \| .* \| .*\|$", readme.split("| file |")[0], re.MULTILINE)


def test_each_suite_has_a_page():
    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "suites").glob("*.md")}
    assert set(pages) == {name for name, row in table.ROWS.items() if row.expands is None}
    assert all(text.startswith(f"# {name}\n") for name, text in pages.items())


def test_suites_map_names_to_descriptions_and_the_readme_lists_them():
    assert list(SUITES) == [*table.ROWS]
    assert all(isinstance(about, str) and about for about in SUITES.values())
    assert SUITES["clean"] == "top-1 and top-5 error on the unchanged images"
    assert described(README.read_text()) == list(SUITES)
    assert suite_table.rewritten() == README.read_text(), "run python -m fastreg.evaluation"


def test_every_figure_of_a_summary_is_a_column_and_every_column_is_of_known_suites(net):
    card = evaluate(net, "clean,fgsm,pgd,occlusion,cifar-c,ood", tiny_images(6, size=32), corruptions="fog")
    assert set(card.summary()) <= set(FIGURES)
    assert all(suite in SUITES for _, _, suites in FIGURES.values() for suite in suites)
    keys = [key for row in table.ROWS.values() for key in row.figures]
    assert len(keys) == len(set(keys)) == len(FIGURES)
    for row in table.ROWS.values():
        assert all(figure.best in ("lowest", "highest", "") and figure.unit for figure in row.figures.values())
    assert next(iter(FIGURES)) == "average"  # the table's first column


FILES = [*(ROOT / "fastreg" / "evaluation").glob("*.py")]
FILES += [ROOT / "fastreg" / "report" / name for name in ("figures_table.py", "terminal.py")]


@pytest.mark.parametrize("path", sorted(FILES), ids=lambda path: path.stem)
def test_no_code_branches_on_a_suites_name(path):
    compared = [
        constant.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant) and constant.value in SUITES
    ]
    assert compared == []


def test_modules_import_each_other_in_one_direction():
    """Imports inside functions and for annotations count too."""
    prefix = "fastreg.evaluation."
    uses = {}
    for path in (ROOT / "fastreg" / "evaluation").glob("[!_]*.py"):
        found = uses[path.stem] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
                found |= {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    modules = set(uses)
    while leaves := {name for name in modules if not uses[name] & modules}:
        modules -= leaves
    assert not modules


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the code with one more suite."""
    root = tmp_path_factory.mktemp("tree")
    for folder in ("fastreg", "kernels", "pipelines", "cli", "benchmarks"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    here = root / "fastreg" / "evaluation"
    (here / "turned.py").write_text(MODULE)
    rows = (here / "suites.py").read_text()
    before = '    Suite(\n        "paper",'
    assert rows.count(before) == 1
    imports = ", published_sets\n"
    assert rows.count(imports) == 1
    rows = rows.replace(imports, ", published_sets, turned\n")
    (here / "suites.py").write_text(rows.replace(before, ROW + before))
    write_table = [sys.executable, "-m", "fastreg.evaluation"]
    subprocess.run(write_table, env=environment(PYTHONPATH=str(root)), cwd=root, check=True, timeout=240)
    return root


@pytest.mark.slow
def test_one_more_suite_reaches_the_card_the_terminal_and_a_report(tree, tmp_path):
    from fastreg import files, runs
    from fastreg.models import create_model

    data = write_tiny_imagenet(tmp_path / "data")
    config = {"dataset": "imagenet", "data_dir": str(data), "model": "resnet18", "model_args": {}, "stem": "imagenet"}
    config |= {"num_classes": 4, "classes": [f"class{i}" for i in range(4)], "eval_size": 32}
    run = tmp_path / "run"
    files.write_json(run / "config.json", config)
    runs.save_checkpoint(run / "best.pt", {"config": config, "model": create_model("resnet18", 4).state_dict()})

    def call(*words):
        env = environment(PYTHONPATH=str(tree), COLUMNS="160")
        done = subprocess.run(command(*words), env=env, cwd=tmp_path, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = call("eval", run, "--suite", "clean,turned", "--device", "cpu")
    assert re.search(r"Turned .* top-1 error on turned images, %", printed)
    found = json.loads((run / "scorecard.json").read_text())
    assert found["suites"]["turned"]["settings"] == {"degrees": 90}
    assert 0 <= found["summary"]["turned_error"] <= 100
    call("report", run)
    assert "turned_error" in (run / "report.csv").read_text()
    assert "Turned" in (run / "report.html").read_text()
    assert "turned" in described((tree / "fastreg" / "evaluation" / "README.md").read_text())
