"""The same examples on every run: a failure in CI is a failure here."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit",
    derandomize=True,
    deadline=None,
    database=None,
    # The autouse fixture that hides CDC_* settings holds for all examples of a test alike.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("unit")


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher's short sleeps take no time; its waits are the twins' affair."""
    monkeypatch.setattr("cdc.publisher.time.sleep", lambda _: None)
