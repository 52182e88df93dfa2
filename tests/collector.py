"""A collector of spans for tests: takes OTLP over HTTP, and keeps what it was sent."""

import contextlib
import gzip
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue


@dataclass(frozen=True, slots=True)
class Collected:
    """One span, and whose it is."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent: str  # empty: a root
    began: int  # nanoseconds since 1970
    ended: int
    failed: bool
    reason: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


class Collector:
    """Listens on a port of its own; answers with `status`."""

    def __init__(self) -> None:
        self.spans: list[Collected] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.headers.append(dict(self.headers))
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if collector.status == 200:
                    assert self.path == "/v1/traces"
                    collector.spans += _read(body)
                self.send_response(collector.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def by_id(self) -> dict[str, Collected]:
        """The spans by the ids of their events; one for each."""
        found = {span.attributes["messaging.message.id"]: span for span in self.spans}
        assert len(found) == len(self.spans), "an event has two spans"
        return found

    @contextlib.contextmanager
    def listening(self) -> Iterator["Collector"]:
        """Until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _read(body: bytes) -> Iterator[Collected]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Collected(
                    span.name,
                    span.kind,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == 2,
                    span.status.message,
                    _values(span.attributes),
                    _values(resource.resource.attributes),
                )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    kind = pair.value.WhichOneof("value")
    return getattr(pair.value, kind) if kind else None
