"""Variables of the environment: what others put there, and how values are written."""

import pytest

from cdc.config.loading import load
from cdc.errors import ConfigError

LINKS = {
    "SERVICE_HOST": "10.96.0.7",
    "SERVICE_PORT": "8080",
    "SERVICE_PORT_HTTP": "8080",
    "PORT": "tcp://10.96.0.7:8080",
    "PORT_8080_TCP": "tcp://10.96.0.7:8080",
    "PORT_8080_TCP_PROTO": "tcp",
    "PORT_8080_TCP_PORT": "8080",
    "PORT_8080_TCP_ADDR": "10.96.0.7",
    "PORT_53_UDP": "udp://10.96.0.7:53",
}
"""What Kubernetes puts into a pod for each Service of its namespace, after the Service's name."""


@pytest.mark.parametrize("service", ["CDC", "CDC_PUBLISHER", "CDC_CDC_PUBLISHER", "CDC_2"])
def test_case_h6_variables_of_a_kubernetes_service_are_no_settings(service: str) -> None:
    load(environ={f"{service}_{name}": value for name, value in LINKS.items()})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CDC_HTTP_PORT", "8080"), ("CDC_POSTGRES_DSN", "postgresql://db"), ("CDC_HTTP__SERVICE_HOST", "10.96.0.7")],
)
def test_case_h6_a_mistyped_setting_is_still_told(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        load(environ={variable: value})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_case_h15_a_newline_at_the_end_of_a_variable_is_removed_as_at_the_end_of_a_file(end: str) -> None:
    given = {"CDC_POSTGRES__SLOT": f"shop{end}", "CDC_KAFKA__SASL_PASSWORD": f"two words {end}"}
    settings = load(environ=given)
    assert settings.postgres.slot == "shop"
    assert settings.kafka["sasl.password"] == "two words "


def test_case_h15_a_variable_that_holds_only_a_newline_is_not_set() -> None:
    assert load(environ={"CDC_POSTGRES__SLOT": "\n"}).postgres.slot == load(environ={}).postgres.slot
