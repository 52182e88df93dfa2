"""The registry over TLS: whom we trust, and how we show who we are."""

import contextlib
import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cdc.config.settings import SchemaRegistry
from cdc.errors import CdcError, ConfigError
from cdc.registry.client import Registry
from cdc.registry.failure import RegistryError
from tests.registry import Double


def pem(folder: Path, name: str, authority: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """Writes NAME.pem, a certificate for 127.0.0.1 with its key; by itself, or by an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(names if authority is None else authority[0].subject, names)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .sign(key if authority is None else authority[1], hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hunter2") if name == "client" else serialization.NoEncryption(),
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return certificate, key


def subjects(url: str, **settings: str) -> list[str]:
    with contextlib.closing(Registry(SchemaRegistry(url=url, timeout_seconds=0.3, **settings))) as registry:
        return registry.subjects()


def test_tls_in_both_directions(tmp_path: Path) -> None:
    authority = pem(tmp_path, "ca")
    pem(tmp_path, "server", authority)
    pem(tmp_path, "client", authority)
    ca, client = str(tmp_path / "ca.pem"), str(tmp_path / "client.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
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
