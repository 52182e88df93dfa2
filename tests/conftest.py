"""For every test: the developer's own settings are out of sight, and the fixtures of servers.py are known."""

import os

import pytest

pytest_plugins = ["tests.servers", "tests.pipeline", "tests.standby", "tests.torment"]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CDC_", "OTEL_")) and not name.startswith("CDC_TEST_"):
            monkeypatch.delenv(name)
