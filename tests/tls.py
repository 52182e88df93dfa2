"""Certificates for tests: an authority, and what it issues, as PEM files in a folder."""

import datetime
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_HOUR = datetime.timedelta(hours=1)
_DAY = datetime.timedelta(days=1)
HOSTS = ("127.0.0.1",)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key: each in a file of its own, and `both` in one, the key first."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Issues certificates; its own is in `file`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        certificate = _signed(_draft(self._name, self._name, self._key, is_authority=True), self._key)
        self.file = _written(folder / f"{name}.pem", _pem(certificate))

    def issue(
        self, name: str, hosts: Iterable[str] = HOSTS, *, expired: bool = False, password: str | None = None
    ) -> Issued:
        """A certificate of common name `name` for `hosts`, addresses or names, whose key is in `password`.

        What is expired has been so for a day.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        draft = _draft(_named(name), self._name, key, ago=2 * _DAY if expired else _HOUR)
        certificate = _pem(_signed(draft.add_extension(_alternative(hosts), critical=False), self._key))
        private = _private(key, password)
        stem = self._folder / f"{name}-{secrets.token_hex(2)}"
        return Issued(
            _written(stem.with_suffix(".crt"), certificate),
            _written(stem.with_suffix(".key"), private),
            _written(stem.with_suffix(".pem"), private + certificate),
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _draft(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    ago: datetime.timedelta = _HOUR,
    is_authority: bool = False,
) -> x509.CertificateBuilder:
    begin = datetime.datetime.now(datetime.UTC) - ago
    return (
        x509.CertificateBuilder(issuer, subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + _DAY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )


def _signed(draft: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return draft.sign(key, hashes.SHA256())


def _alternative(hosts: Iterable[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts]
    )


def _private(key: ec.EllipticCurvePrivateKey, password: str | None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption(),
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path
