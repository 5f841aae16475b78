"""Makes the helpers beside this file importable from every test folder; a skip is a failure where it must be."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


# Dozens of tests start entry64 in a process of its own, and xdist its workers: where somebody forbids byte code, each
# of these would compile all of it again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Where ENTRY64_NO_SKIP is set (CI installs every tool), a skip is a failure."""
    outcome = yield
    report = outcome.get_result()
    if os.environ.get("ENTRY64_NO_SKIP") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped although nothing may be skipped here: {reason}"
