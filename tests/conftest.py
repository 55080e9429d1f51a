"""Where a test lacks what it needs (a browser, the data) it is skipped; with HPO_NO_SKIPS set it fails instead."""

import os

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("HPO_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which HPO_NO_SKIPS forbids: {report.longrepr}"
    return report
