"""Settings of the registry: validation and masking."""

import pytest

from cdc.config.loading import load
from cdc.config.masking import MASK, mask_url, masked
from cdc.config.settings import SchemaRegistry
from cdc.errors import ConfigError


@pytest.mark.parametrize("url", ["http://h", "https://h:8081", "http://[::1]:8081/apis/ccompat/v7", "http://h1:1,http://h2:2",
                                 "http://u:p%40ss@h:1", "https://key@h"])  # fmt: skip
def test_a_valid_url_is_accepted_unchanged(url: str) -> None:
    assert SchemaRegistry(url=url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "h:8081",
        "ftp://h",
        "httpx://h",
        "mock://x",
        "http://",
        "http://u:hunter2#@h",
        "http://u:hunter2@h@h",
        "http://h:hunter2",
        "http://h?password=hunter2",
        "http://h,hunter2",
    ],
)
def test_an_invalid_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(None, [f"schema_registry.url={url}"], {})
    assert "a registry URL is http://host:port" in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"token": "t", "username": "u"}, "token excludes username"),
        ({"token": "t", "url": "http://u:p@h"}, "token excludes credentials in url"),
        ({"username": "u", "url": "http://u:p@h"}, "username excludes credentials in url"),
        ({"username": "u:v"}, "username may not hold a colon"),
        ({"password": "p"}, "password needs username"),
        ({"ssl_key": "k"}, "ssl_key needs ssl_certificate"),
        ({"ssl_key_password": "k"}, "ssl_key_password needs ssl_certificate"),
        ({"timeout_seconds": "0"}, "timeout_seconds: input should be greater than 0"),
    ],
)
def test_contradicting_settings_are_one_problem(settings: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(None, [f"schema_registry.{name}={value}" for name, value in settings.items()], {})
    (reported,) = raised.value.problems
    assert "[schema_registry]" in reported
    assert reported.endswith(problem)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h:1/path", "http://h:1/path"),
        ("https://u:hunter2@h:1", f"https://u:{MASK}@h:1"),
        ("https://u@h", "https://u@h"),
        ("http://u:hunter2@h1, http://u:hunter2@h2:2", f"http://u:{MASK}@h1,http://u:{MASK}@h2:2"),
        ("http://u:hun@ter2@h", MASK),
        ("hunter2", MASK),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert mask_url(url) == shown
    assert masked("url", url) == shown


@pytest.mark.parametrize("name", ["password", "token", "ssl_key_password"])
def test_secrets_are_masked(name: str) -> None:
    assert masked(name, "hunter2") == MASK
    assert masked(name, None) is None


def test_an_unset_url_is_shown_as_none() -> None:
    assert masked("url", None) is None
