"""A skipped test must print why, and fails instead if FASTREG_MUST_RUN names the missing package.

``tests/interpreter`` is collected where TRITON_INTERPRET=1 is set, ``tests/ptx`` where FASTREG_PTX=1 is. Elsewhere they
are left out, with a line in the header.
"""

from __future__ import annotations

import os

import pytest

from fastreg.pipelines import LOADERS as fastreg_loaders
from tests.support import peer

LOADERS = {name: spec.package for name, spec in fastreg_loaders.items() if spec.package}
MUST_RUN = [word for word in os.environ.get("FASTREG_MUST_RUN", "").lower().split(",") if word]


def pytest_report_header(config: pytest.Config) -> list[str]:
    left_out = (
        ("TRITON_INTERPRET", "tests/interpreter is not collected: Triton's interpreter needs TRITON_INTERPRET=1"),
        ("FASTREG_PTX", "tests/ptx is not collected: it takes minutes, and runs with FASTREG_PTX=1 (make ptx)"),
    )
    lines = [line for variable, line in left_out if os.environ.get(variable) != "1"]
    if config.getoption("markexpr") == "not slow":
        lines.append("tests marked slow are deselected: they run with -m slow (make test-slow)")
    return lines


def _turn_into_failure(report) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if any(word in reason.lower() for word in MUST_RUN):
        report.outcome = "failed"
        report.longrepr = f"skipped although FASTREG_MUST_RUN={','.join(MUST_RUN)}: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    _turn_into_failure(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    outcome = yield
    _turn_into_failure(outcome.get_result())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """A test whose name or parameters name a loader needs that loader's package."""
    for word, package in LOADERS.items():
        if word in item.name.lower():
            peer(package)
