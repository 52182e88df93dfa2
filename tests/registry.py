"""A double of the Schema Registry over real HTTP: behaves as documented at
<https://docs.confluent.io/platform/current/schema-registry/develop/api.html> and misbehaves as told.
"""

import base64
import json
import ssl
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote

from tests.registry_store import LEVELS, Refusal, Rule, Store

Fault = Literal[
    "refuse", "hang", "slow", "500", "503", "401", "403", "404", "429", "409", "422",
    "half-body", "half-json", "not-json", "no-id", "wrong-id", "other-schema",
]  # fmt: skip

JSON = "application/vnd.schemaregistry.v1+json"
SLOW_SECONDS = 0.3
_ANSWERS: dict[str, tuple[int, int, str]] = {
    "500": (500, 50002, "Timed out waiting for the store"),
    "503": (503, 503, "Service Unavailable"),
    "401": (401, 401, "Unauthorized"),
    "403": (403, 40301, "User is denied operation Write on Subject"),
    "429": (429, 42901, "Too Many Requests"),
    "409": (409, 409, "Schema being registered is incompatible with an earlier schema"),
    "422": (422, 42205, "Subject is in read-only mode"),
}


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class Double:
    """Runs while its `with` lasts; `fault` may be changed at any time."""

    def __init__(
        self,
        rule: Rule = lambda *_: [],
        *,
        basic: str | None = None,
        bearer: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.tls = tls
        self.store = Store(rule)
        self.requests: list[Request] = []
        self.mute = False  # refuses without a reason, as Apicurio's does
        self._wanted = f"Basic {base64.b64encode(basic.encode()).decode()}" if basic else bearer and f"Bearer {bearer}"
        self._fault: Fault | None = None
        self._lock = threading.Lock()
        self._go_on = threading.Event()
        self._port = 0
        self._server: _Server | None = None

    @property
    def fault(self) -> Fault | None:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        before, self._fault = self._fault, fault
        self._go_on.set()  # what hung before goes on
        self._go_on = threading.Event()
        if fault == "refuse":
            self._down()
        elif before == "refuse":
            self._up()

    def paths(self) -> list[str]:
        """Methods and paths that were asked for, without parameters."""
        return [f"{request.method} {request.path.partition('?')[0]}" for request in self.requests]

    def __enter__(self) -> "Double":
        self._up()
        return self

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
        self._down()

    def _up(self) -> None:
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_address[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="registry double").start()

    def _down(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, request: Request) -> tuple[int, bytes, int]:
        """Status, body, and how many bytes of it to promise."""
        with self._lock:
            self.requests.append(request)
            fault, go_on = self._fault, self._go_on
        if fault in ("hang", "slow"):
            go_on.wait(60 if fault == "hang" else SLOW_SECONDS)
        if fault == "404":
            return 404, b"<html>nothing here</html>", 25
        if fault == "not-json":
            return 200, b"<html>welcome</html>", 20
        status, answer = self._decided(request, fault)
        body = json.dumps(self._twisted(request, answer, fault) if status == 200 else answer).encode()
        if fault == "half-json":
            body = body[: len(body) // 2]
        return status, body[: len(body) // 2] if fault == "half-body" else body, len(body)

    def _decided(self, request: Request, fault: Fault | None) -> tuple[int, Any]:
        if self._wanted and request.headers.get("authorization") != self._wanted:
            return 401, {"error_code": 401, "message": "Unauthorized"}
        if fault in _ANSWERS:
            status, code, message = _ANSWERS[fault]
            return status, {"error_code": code, "message": message}
        try:
            with self._lock:
                return 200, self._routed(request)
        except Refusal as error:
            return error.status, {"error_code": error.code, **({} if self.mute else {"message": error.message})}

    def _twisted(self, request: Request, answer: Any, fault: Fault | None) -> Any:
        if not isinstance(answer, dict):
            return answer
        if fault == "no-id" and request.method == "POST":
            return {name: value for name, value in answer.items() if name != "id"}
        if fault == "wrong-id" and "id" in answer:
            return answer | {"id": answer["id"] % len(self.store.schemas) + 1}
        if fault == "other-schema" and "schemas/ids" in request.path:
            return {"schema": '{"type":"record","name":"Other","fields":[]}'}
        return answer

    def _routed(self, request: Request) -> Any:
        store, body = self.store, request.body
        match [request.method, *(unquote(part) for part in request.path.partition("?")[0].strip("/").split("/"))]:
            case ["GET", "subjects"]:
                return sorted(store.subjects)
            case ["POST", "subjects", subject]:
                store.known(subject)
                return store.lookup(subject, store.parsed(body))
            case ["GET", "subjects", subject, "versions"]:
                return list(range(1, len(store.known(subject)) + 1))
            case ["POST", "subjects", subject, "versions"]:
                return {"id": store.register(subject, store.parsed(body))}
            case ["GET", "subjects", subject, "versions", version]:
                number, schema_id = store.version(subject, version)
                shown = store.schemas[schema_id].shown()
                return {"subject": subject, "version": number, "id": schema_id, **shown}
            case ["GET", "schemas", "ids", text]:
                if int(text) not in store.schemas:
                    raise Refusal(404, 40403, f"Schema {text} not found")
                return store.schemas[int(text)].shown()
            case ["POST", "compatibility", "subjects", subject, "versions"]:
                return self._compatible(request, subject, store.subjects.get(subject, []))
            case ["POST", "compatibility", "subjects", subject, "versions", version]:
                return self._compatible(request, subject, [store.version(subject, version)[1]])
            case ["GET", "config"]:
                return {"compatibilityLevel": store.levels[""]}
            case ["GET", "config", subject]:
                if subject not in store.levels:
                    raise Refusal(
                        404, 40408, f"Subject '{subject}' does not have subject-level compatibility configured"
                    )
                return {"compatibilityLevel": store.levels[subject]}
            case ["PUT", "config", *subject]:
                if body.get("compatibility") not in LEVELS:
                    raise Refusal(422, 42203, "Invalid compatibility level")
                store.levels["".join(subject)] = body["compatibility"]
                return {"compatibility": body["compatibility"]}
        raise Refusal(404, 404, "HTTP 404 Not Found")

    def _compatible(self, request: Request, subject: str, ids: list[int]) -> dict[str, Any]:
        problems = self.store.problems(subject, self.store.parsed(request.body), ids)
        told = {"messages": problems} if "verbose=true" in request.path.lower() and not self.mute else {}
        return {"is_compatible": not problems, **told}


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # closing the server waits for them: no socket outlives a test

    def __init__(self, address: tuple[str, int], double: Double) -> None:
        self.double = double
        super().__init__(address, _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.double.tls:
            request = self.double.tls.wrap_socket(request, server_side=True)
        with request:
            super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, answer, promised = self.server.double.answer(Request(self.command, self.path, headers, body))
        self.send_response(status)
        self.send_header("Content-Type", JSON)
        self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the library's names

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Not on the tests' output."""
