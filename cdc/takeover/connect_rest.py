"""Kafka Connect's REST interface, with the credentials of the environment.

<https://kafka.apache.org/documentation/#connect_rest>
"""

import base64
import contextlib
import http.client
import json
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from cdc.config import files
from cdc.errors import CdcError, ConfigError, Temporary

SECONDS: Final = 90.0
"""Kafka Connect itself answers after 90 s at the latest."""

_LARGEST: Final = 8 * 1024 * 1024
_TOO_OLD: Final = (404, 405)


class ConnectError(CdcError):
    """Kafka Connect refused a request; `status` is that of HTTP."""

    def __init__(self, message: str, status: int, hint: str = "") -> None:
        self.status = status
        super().__init__(message, hint)


class ConnectUnavailable(Temporary):
    """Kafka Connect does not answer."""


def credentials(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the values of CDC_CONNECT_USERNAME and the others, or of their files. Raises ConfigError."""
    found = {}
    for name in ("USERNAME", "PASSWORD", "TOKEN", "CA", "CERTIFICATE", "KEY"):
        variable = f"CDC_CONNECT_{name}"
        value = environ.get(variable, "")
        file = environ.get(f"{variable}_FILE", "")
        if value and file:
            raise ConfigError(f"{variable} and {variable}_FILE are both set: set only one of them")
        if file and name not in ("CA", "CERTIFICATE", "KEY"):
            try:
                value = files.read(file)
            except ValueError as error:
                raise ConfigError(f"{variable}_FILE: {error}") from None
        found[name.lower()] = value or file
    return found


def fetch(url: str) -> str:
    """Return the text at an http or https URL. Raises ConnectError and ConnectUnavailable."""
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.netloc}"
    status, content = _Connection(base).request("GET", url.removeprefix(base) or "/")
    if status != http.HTTPStatus.OK:
        raise ConnectError(f"GET {url}: {_reason(status, content)}", status, _hint(status))
    return content.decode(errors="replace")


def _hint(status: int) -> str:
    if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        return "set CDC_CONNECT_USERNAME and CDC_CONNECT_PASSWORD, or CDC_CONNECT_TOKEN"
    return ""


def _reason(status: int, content: bytes) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return f"{status} {json.loads(content).get('message', '')}"
    return f"{status} {http.client.responses.get(status, '')}"


class _Connection:
    """One server; `base` is its scheme, host and port."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{base!r} is not http://host:port or https://host:port")
        if parts.username is not None:
            raise ConfigError(
                "the URL of Kafka Connect contains a user",
                hint="set CDC_CONNECT_USERNAME and CDC_CONNECT_PASSWORD instead",
            )
        self._base = base
        self._host, self._port, self._tls = parts.hostname, parts.port, parts.scheme == "https"
        self._credentials = credentials()

    def request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Send one request; returns the status and the content. Raises ConnectUnavailable."""
        headers = {"Accept": "application/json"}
        text = None
        if body is not None:
            text, headers["Content-Type"] = json.dumps(body), "application/json"
        given = self._credentials
        if given["token"]:
            headers["Authorization"] = f"Bearer {given['token']}"
        elif given["username"]:
            pair = f"{given['username']}:{given['password']}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        try:
            with contextlib.closing(self._connect()) as connection:
                connection.request(method, path, text, headers)
                answer = connection.getresponse()
                return answer.status, answer.read(_LARGEST)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectUnavailable(f"{method} {self._base}{path}: {error or type(error).__name__}") from None

    def _connect(self) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=SECONDS)
        context = ssl.create_default_context(cafile=self._credentials["ca"] or None)
        if certificate := self._credentials["certificate"]:
            context.load_cert_chain(Path(certificate), self._credentials["key"] or None)
        return http.client.HTTPSConnection(self._host, self._port, timeout=SECONDS, context=context)


class ConnectRest:
    """One connector at a URL such as http://connect:8083/connectors/orders."""

    def __init__(self, url: str) -> None:
        base, marker, name = url.rstrip("/").partition("/connectors/")
        name = name.split("/")[0]
        if not marker or not name:
            raise ConfigError(f"{url!r} is not the URL of a connector, as http://host:port/connectors/NAME")
        self.name = name
        self._path = f"{urlsplit(base).path}/connectors/{quote(name, safe='%')}"
        self._connection = _Connection(f"{urlsplit(base).scheme}://{urlsplit(base).netloc}")

    def config(self) -> dict[str, Any]:
        """Return the connector's configuration."""
        return dict(self._ask("GET", f"{self._path}/config"))

    def state(self) -> tuple[str, list[str]]:
        """Return the state of the connector, and those of its tasks."""
        status = self._ask("GET", f"{self._path}/status")
        return status["connector"]["state"], [task["state"] for task in status.get("tasks", [])]

    def offsets(self) -> list[dict[str, Any]]:
        """Return the stored offsets; Kafka Connect 3.5 or newer."""
        return list(self._ask("GET", f"{self._path}/offsets")["offsets"])

    def change_offsets(self, offsets: list[dict[str, Any]]) -> None:
        """Change the stored offsets of a stopped connector; Kafka Connect 3.6 or newer."""
        self._ask("PATCH", f"{self._path}/offsets", {"offsets": offsets}, since="3.6")

    def stop(self) -> None:
        """Stop the connector and its tasks; Kafka Connect 3.5 or newer."""
        self._ask("PUT", f"{self._path}/stop")

    def resume(self) -> None:
        """Let a stopped connector run."""
        self._ask("PUT", f"{self._path}/resume")

    def _ask(self, method: str, path: str, body: object = None, since: str = "3.5") -> Any:
        status, content = self._connection.request(method, path, body)
        if status >= http.HTTPStatus.BAD_REQUEST:
            hint = _hint(status)
            if status in _TOO_OLD and not path.endswith(("/status", "/config")):
                hint = f"Kafka Connect {since} or newer is needed for this; older ones need --stop manual"
            raise ConnectError(f"Kafka Connect, {method} {path}: {_reason(status, content)}", status, hint)
        return json.loads(content) if content else None
