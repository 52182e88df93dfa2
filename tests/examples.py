"""How many examples property tests try: other ones on each run, and ten times as many in `make nightly`."""

import os
import random

import pytest
from hypothesis import HealthCheck, settings

_NIGHTLY = 1000

for _name, _examples in (("run", _NIGHTLY // 10), ("nightly", _NIGHTLY)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,
        database=None,
        print_blob=True,
        # The autouse fixture that hides CDC_* settings holds for all examples of a test alike.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
settings.load_profile("nightly" if os.environ.get("CDC_TEST_NIGHTLY") else "run")


def examples(nightly: int) -> settings:
    """Try so many examples in `make nightly`, and a tenth of them in every other run."""
    return settings(max_examples=nightly * settings().max_examples // _NIGHTLY)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed before Hypothesis reads it, and before the workers get the options."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.randrange(2**32))


def pytest_report_header(config: pytest.Config) -> str:
    """Say how to see the same examples again."""
    return f"examples: --hypothesis-seed={config.option.hypothesis_seed}"
