"""The same examples on every run: a failure in CI is a failure here."""

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
