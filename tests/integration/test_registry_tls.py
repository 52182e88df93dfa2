"""The registry over TLS: whom we trust, and how we show who we are."""

import contextlib
import ssl
from pathlib import Path

import pytest

from cdc.config.settings import SchemaRegistry
from cdc.errors import CdcError, ConfigError
from cdc.registry.client import Registry
from cdc.registry.errors import RegistryError
from tests.registry import Double
from tests.tls import Authority


def subjects(url: str, **settings: str) -> list[str]:
    with contextlib.closing(Registry(SchemaRegistry(url=url, timeout_seconds=0.3, **settings))) as registry:
        return registry.subjects()


def test_tls_in_both_directions(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ca, client = str(authority.file), str(authority.issue("client", password="hunter2").both)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("server").both)
    with Double(tls=context) as double:
        assert subjects(double.url, ssl_ca=ca) == []
        with pytest.raises(RegistryError, match=r"CERTIFICATE_VERIFY_FAILED.*check ssl_ca"):
            subjects(double.url)
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
        mutual = {"ssl_ca": ca, "ssl_certificate": client, "ssl_key_password": "hunter2"}
        assert subjects(double.url, **mutual) == []
        with pytest.raises(CdcError, match="certificate required"):
            subjects(double.url, ssl_ca=ca)
    with pytest.raises(ConfigError, match="ssl_certificate") as raised:
        subjects(double.url, **mutual | {"ssl_key_password": "hunter3"})
    assert "hunter" not in str(raised.value)
