"""Docstrings of the exported functions and classes: arguments, shapes and dtypes, return values, errors.

A docstring has Google's sections. ``Args`` names the parameters of the signature. The entry of a tensor
states a dtype and a shape in brackets. ``Raises`` names errors that a test provokes by calling the function inside
``pytest.raises``.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import inspect
import re
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from tests.support import ROOT

# Packages whose exports (``__all__``, else the public names that they define) follow the form.
PACKAGES = (
    "fastreg.kernels",
    "fastreg.kernels.registry",
    "fastreg.methods",
    "fastreg.models",
    "fastreg.metrics",
    "fastreg.recipes",
    "fastreg.pipelines",
    "fastreg.training",
    "fastreg.evaluation",
    "fastreg.evaluation.scores",
    "fastreg.report",
    "fastreg.distributed",
    "fastreg.benchmarks",
)
SECTIONS = (
    "Args",
    "Attributes",
    "Returns",
    "Yields",
    "Raises",
    "Source",
    "Sources",
    "Example",
    "Examples",
    "Note",
    "Notes",
)
DTYPE = re.compile(r"\b(u?int\d+|b?float\d+|bool|complex\d+)\b|``dtype``")
SHAPE = re.compile(r"\[[^\]]*\]")


def exported() -> list[tuple[str, Any]]:
    """Name and object of every exported function and class. Exported constants have no docstring."""
    found = []
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")]):
            value = getattr(module, name)
            own = hasattr(module, "__all__") or getattr(value, "__module__", None) == package
            if own and (inspect.isclass(value) or inspect.isroutine(value)):
                found.append((f"{package}.{name}", value))
    return found


EXPORTED = exported()
NAMES = [name for name, _ in EXPORTED]


def sections(value: Any) -> dict[str, str]:
    """The docstring's sections; the text before the first one is under ""."""
    text = inspect.cleandoc(value.__doc__ or "")
    parts = re.split(rf"^({'|'.join(SECTIONS)}):\s*$", text, flags=re.MULTILINE)
    return {"": parts[0].strip()} | dict(zip(parts[1::2], parts[2::2]))


def entries(section: str) -> dict[str, str]:
    """``name: text`` entries of a section, continuation lines joined."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(section).splitlines():
        head = re.match(r"(\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*)(?: \(.*?\))?:\s*(.*)", line)
        if head:
            names = [name.lstrip("*") for name in head[1].split(", ")]
            found |= dict.fromkeys(names, head[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def commented_fields(value: Any) -> dict[str, str]:
    """The fields of a NamedTuple or dataclass that have a comment on their line, or on the line above."""
    if not (hasattr(value, "_fields") or dataclasses.is_dataclass(value)):
        return {}
    lines = inspect.getsource(value).splitlines()
    found = {}
    for above, line in pairwise(lines):
        field = re.match(r"    (\w+): ", line)
        if field and (comment := re.search(r"# (.+)", line) or re.match(r"    # (.+)", above)):
            found[field[1]] = comment[1]
    return found


def parameters(value: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a call, without ``self``. An exception's signature is that of its base."""
    if inspect.isclass(value) and issubclass(value, BaseException):
        return {}
    return {name: p for name, p in inspect.signature(value).parameters.items() if name != "self"}


def is_tensor(annotation: Any) -> bool:
    """Whether an annotation is a tensor, or a union or tuple with one. A dictionary of tensors has many shapes."""
    return "Tensor" in re.sub(r"dict\[[^\]]*\]", "", str(annotation))


@pytest.mark.parametrize(("name", "value"), EXPORTED, ids=NAMES)
def test_summary_and_arguments(name, value):
    """Fields of a NamedTuple or dataclass may have a comment instead of an entry."""
    found = sections(value)
    summary = found[""].split("\n")[0]
    assert summary.endswith((".", ":")), f"the summary of {name} is not one sentence on one line: {summary!r}"
    expected = parameters(value)
    arguments = commented_fields(value) | entries(found.get("Args", ""))
    attributes = entries(found.get("Attributes", ""))
    assert all(attributes.values()), f"an attribute of {name} has no text"
    if attributes and not (arguments.keys() - expected.keys()):  # an object that a function makes, or a row of fields
        return
    assert sorted(arguments) == sorted(expected), f"Args of {name} are not the signature's parameters"
    for argument, text in arguments.items():
        assert text, f"{name}: `{argument}` has no text"
        if is_tensor(expected[argument].annotation):
            assert DTYPE.search(text), f"{name}: `{argument}` is a tensor without a dtype: {text}"
            assert SHAPE.search(text), f"{name}: `{argument}` is a tensor without a shape: {text}"


@pytest.mark.parametrize(("name", "value"), EXPORTED, ids=NAMES)
def test_returns(name, value):
    if inspect.isclass(value):
        return
    returned = inspect.signature(value).return_annotation
    assert returned is not inspect.Signature.empty, f"{name} has no return annotation"
    found = sections(value)
    if returned in (None, "None", "Iterator[None]"):
        return
    text = found.get("Returns", found.get("Yields", "")).strip()
    assert text, f"{name} does not say what it returns"
    if is_tensor(returned):
        assert DTYPE.search(text), f"{name} returns a tensor without a dtype: {text}"
        assert SHAPE.search(text), f"{name} returns a tensor without a shape: {text}"


RAISED = [(name, value, error) for name, value in EXPORTED for error in entries(sections(value).get("Raises", ""))]


@pytest.mark.parametrize(("name", "value", "error"), RAISED, ids=[f"{name}-{error}" for name, _, error in RAISED])
def test_a_test_provokes_each_error(name, value, error):
    names = {other.rpartition(".")[2] for other, same in EXPORTED if same is value} | {value.__name__}
    found = {(alias, error) for alias in names} & provoked()
    assert found, f"no test calls {name} inside pytest.raises({error})"


@cache
def provoked() -> frozenset[tuple[str, str]]:
    """(function, error) of every call inside a ``with pytest.raises``, over all tests."""
    found: set[tuple[str, str]] = set()
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path != ROOT / "tests/test_docstrings.py":
            found |= provoked_in(ast.parse(path.read_text()))
    return frozenset(found)


def provoked_in(module: ast.Module) -> set[tuple[str, str]]:
    """Of one module. An error that is a variable stands for every error that the test's table or decorator names."""
    tables = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = set()
    for test in ast.walk(module):
        if not isinstance(test, ast.FunctionDef):
            continue
        named = {leaf.id for leaf in ast.walk(test) if isinstance(leaf, ast.Name)}
        given = errors_named(test) | {e for name in named & tables.keys() for e in errors_named(tables[name])}
        for block in ast.walk(test):
            if isinstance(block, ast.With):
                for raises in filter(is_raises, (item.context_expr for item in block.items)):
                    errors = errors_named(raises.args[0]) or given
                    entered = [ast.Expr(item.context_expr) for item in block.items]  # ``with raises(E), call():``
                    found |= {
                        (call, error) for call in calls([*block.body, *entered], test, tables) for error in errors
                    }
    return found


def is_raises(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "raises"


def errors_named(node: ast.AST) -> set[str]:
    """Names of exception classes in a piece of code: the builtin ones, and names that end in Error."""
    names = {leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name)}
    names |= {leaf.attr for leaf in ast.walk(node) if isinstance(leaf, ast.Attribute)}
    return {name for name in names if name.endswith("Error") or is_builtin_error(name)}


def is_builtin_error(name: str) -> bool:
    value = getattr(builtins, name, None)
    return inspect.isclass(value) and issubclass(value, BaseException)


def calls(body: list[ast.stmt], test: ast.FunctionDef, tables: dict[str, ast.expr]) -> set[str]:
    """Functions that ``body`` calls, by name; a called variable stands for the functions named in its table."""
    found = set()
    for call in (node for statement in body for node in ast.walk(statement) if isinstance(node, ast.Call)):
        found.add(call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", ""))
    arguments = {a.arg for a in test.args.args}
    if found & arguments:  # a parametrized call: the decorators name it
        for decorator in test.decorator_list:
            for node in ast.walk(decorator):
                if isinstance(node, ast.Name) and node.id in tables:
                    found |= named_functions(tables[node.id])
            found |= named_functions(decorator)
    return found


def named_functions(node: ast.AST) -> set[str]:
    names = {leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name)}
    return names | {leaf.attr for leaf in ast.walk(node) if isinstance(leaf, ast.Attribute)}


def test_the_search_finds_calls_and_only_those():
    """The finder itself: a direct call, a table of errors, a parametrized call, and none outside a raises block."""
    code = """
BAD = {"dtype": (1, TypeError), "value": (2, ValueError)}

def test_one():
    before(1)
    with pytest.raises(KeyError, match="x"):
        package.load(0)

@pytest.mark.parametrize("name", BAD)
def test_two(name):
    argument, error = BAD[name]
    with pytest.raises(error):
        save(argument)

@pytest.mark.parametrize("call", [lambda: fit(0), draw])
def test_three(call):
    with pytest.raises((OSError, InputError)):
        call()
"""
    found = provoked_in(ast.parse(code))
    assert {("load", "KeyError"), ("save", "TypeError"), ("save", "ValueError")} <= found
    assert {("fit", "OSError"), ("draw", "InputError")} <= found
    assert not {("before", "KeyError"), ("load", "TypeError"), ("save", "KeyError")} & found
