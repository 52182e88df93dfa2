"""Finds out why a broker's certificate is refused: librdkafka reports only that it could not be verified.

Python's TLS verifies the certificate once more after a connection failed.
"""

import socket
import ssl
from collections.abc import Mapping
from typing import Final

from cdc.config.librdkafka import Value

_SECONDS: Final = 3.0
_AUTHORITY: Final = 'set "ssl.ca.location" in [kafka] to the file of the authority that signed it'
_UNKNOWN: Final = ("it could not be verified", _AUTHORITY)
_HOST: Final = 'name the broker as its certificate does, in "bootstrap.servers" and in its own advertised.listeners'

# OpenSSL's codes: <https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/>
_HINTS: Final = {
    9: "check the clocks: it is not valid yet",
    10: "renew the broker's certificate",
    62: _HOST,
    64: _HOST,  # an address, where 62 is a name
}


def why(address: str, given: Mapping[str, Value]) -> tuple[str, str]:
    """Return why the certificate at host:port is refused, and what to do. Waits for a few seconds at most."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")  # of IPv6
    try:
        with (
            socket.create_connection((host, int(port)), _SECONDS) as plain,
            _context(given).wrap_socket(plain, server_hostname=host),
        ):
            return _UNKNOWN
    except ssl.SSLCertVerificationError as error:
        return error.verify_message.rstrip("."), _HINTS.get(error.verify_code, _AUTHORITY)
    except (OSError, ValueError):
        return _UNKNOWN


def _context(given: Mapping[str, Value]) -> ssl.SSLContext:
    file, text = (given.get(f"ssl.ca.{name}") for name in ("location", "pem"))
    context = ssl.create_default_context(cafile=str(file) if file else None, cadata=str(text) if text else None)
    context.check_hostname = given.get("ssl.endpoint.identification.algorithm") != "none"
    return context
