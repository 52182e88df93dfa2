"""For every test: the developer's own settings are out of sight, and the fixtures of servers.py are known."""

import gc
import os
import signal
from collections.abc import Generator

import pytest

# What a shell starts in the background ignores SIGINT, and so would all that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.examples",
    "tests.servers",
    "tests.templates",
    "tests.brokers",
    "tests.pipeline",
    "tests.standby",
    "tests.torment",
]


# What is imported and collected stays: collections would look at it again and again, for a tenth of the time.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CDC_", "OTEL_")) and not name.startswith("CDC_TEST_"):
            monkeypatch.delenv(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in captured output: a worker of xdist cannot send them to the controller."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report
