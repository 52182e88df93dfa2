"""Classifies the errors of a registry: temporary ones are retried, others need a human."""

import re
from typing import Final

from cdc.errors import CdcError, Everywhere, Temporary

SUBJECT_NOT_FOUND: Final = 40401
VERSION_NOT_FOUND: Final = 40402
SCHEMA_NOT_FOUND: Final = 40403
UNKNOWN: Final = (SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, SCHEMA_NOT_FOUND)
NO_REASON: Final = "no reason is given"

_HALF: Final = re.compile(r"^Unknown Schema Registry Error: b['\"]\{")  # how the client words an answer that is no JSON
_LONGEST = 2000  # characters of the registry's own message
_CREDENTIALS = "check username and password, or token, in [schema_registry]"


class RegistryError(CdcError):
    """A permanent error of the registry; `status` is that of HTTP, `code` the registry's, 0 when there was none."""

    def __init__(self, message: str, hint: str = "", *, status: int = 0, code: int = 0) -> None:
        super().__init__(message, hint)
        self.status, self.code = status, code


class RegistryRefused(RegistryError, Everywhere):
    """Credentials or certificates are refused, or the server is no registry."""


class RegistryUnavailable(Temporary):
    """The registry cannot be reached, or reports a temporary error."""


def answered(status: int, code: int, text: str, doing: str, url: str) -> CdcError:
    """Convert an error that the registry answered with."""
    message = (
        f"registry {url}, {doing}: {_short(text)} (HTTP {status}{f', {code}' if code not in (-1, status) else ''})"
    )
    if _HALF.search(text):
        return garbled(f"half an error (HTTP {status})", doing, url)
    if status in (408, 429) or status >= 500:
        return RegistryUnavailable(message, hint=_TEMPORARY.get(status, "check the registry's own log"))
    hint, kind = _PERMANENT.get(status, ""), RegistryRefused if status == 401 else RegistryError
    if status < 400 or (status == 404 and code < SUBJECT_NOT_FOUND):
        hint, kind = "the server is no registry: check [schema_registry] url", RegistryRefused
    return kind(message, hint=hint, status=status, code=code)


def incompatible(doing: str, url: str) -> RegistryError:
    """Describe an incompatibility that the registry does not explain, in the words of `answered`."""
    return RegistryError(f"registry {url}, {doing}: {NO_REASON} (HTTP 409)", hint=_PERMANENT[409], status=409)


def unreachable(error: Exception, doing: str, url: str) -> CdcError:
    """Convert the error of a request without a complete answer."""
    reason = _short(str(error)) or type(error).__name__
    return RegistryUnavailable(
        f"registry {url}, {doing}: no answer: {reason}",
        hint="check that it runs and that [schema_registry] url names it",
    )


def garbled(reason: str, doing: str, url: str) -> CdcError:
    """Describe an answer that is not one of a registry."""
    return RegistryUnavailable(
        f"registry {url}, {doing}: the answer cannot be read: {_short(reason)}",
        hint="check proxies in front of the registry, and [schema_registry] url",
    )


def distrusted(error: Exception, doing: str, url: str) -> CdcError:
    """Convert the error of a certificate that one of both sides does not trust."""
    return RegistryRefused(
        f"registry {url}, {doing}: {_short(str(error))}", hint="check ssl_ca and ssl_certificate in [schema_registry]"
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


_TEMPORARY: Final = {429: "the registry asks for fewer requests"}

_PERMANENT: Final = {
    401: _CREDENTIALS,
    403: f"{_CREDENTIALS}, and the rights of that user on the subject",
    409: "change the contract so that it fits the registered schema, or the subject's compatibility level",
    422: "correct the contract, or the subject's mode and settings in the registry",
}
