"""One request: read within limits, checked strictly, answered once; then the connection ends.

`http.server` accepts much that no probe sends: bare line feeds, folded headers, bodies of any size. What could be read
in two ways is refused here, as a proxy in front may read it the other way.
<https://www.rfc-editor.org/rfc/rfc9112>
"""

import contextlib
import io
import re
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from cdc.http import answers
from cdc.http.answers import Answer

if TYPE_CHECKING:
    from cdc.http.server import HttpListener

HEADER_BYTES: Final = 16_384
"""Largest request line and headers: browsers send the cookies of every other service on localhost."""
BODY_BYTES: Final = 1_024
"""Largest body; no request here needs one."""

_HEAD: Final = re.compile(
    rb"[A-Z]+ [!-~]+(?: HTTP/[0-9]\.[0-9])?\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)*\r\n"
)  # fmt: skip
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
_CHUNK_LINE_BYTES: Final = 256
_LINGER_SECONDS: Final = 1.0
_LINGER_READS: Final = 16


class _Refused(Exception):
    """The request is malformed or too large; the argument is the HTTP status."""


class RequestHandler(BaseHTTPRequestHandler):
    """Answers the one request of a connection. `Listener.tidy` ends connections that take too long."""

    server: "HttpListener"
    disable_nagle_algorithm = True
    command = ""
    request_version = "HTTP/1.0"  # of refusals of a request without a valid version

    def handle(self) -> None:
        """Answer one request, and ignore any that follow it in the connection."""
        try:
            if self._received():
                self._send(self._answer())
        except _Refused as refused:
            self.send_error(refused.args[0])
        self._linger()

    def send_error(self, code: int, *_: object, **__: object) -> None:
        """Refuse the request, with the headers of every other answer."""
        status = HTTPStatus(code)
        self._send(answers.text(status.phrase, status))

    def log_message(self, *_: object) -> None:
        """Log nothing: anyone could fill the log."""

    def _received(self) -> bool:
        """Whether a whole request has come; otherwise the client has left, or `parse_request` has refused it."""
        head = self._head()
        if not head:
            return False
        if not _HEAD.fullmatch(head):
            raise _Refused(HTTPStatus.BAD_REQUEST)
        self.raw_requestline, _, fields = head.partition(b"\r\n")
        connection, self.rfile = self.rfile, io.BytesIO(fields)
        parsed = self.parse_request()
        self.rfile = connection
        if parsed:
            self._check_body()
        return parsed

    def _head(self) -> bytes:
        """The request line and the headers; empty when the client left before their end."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline(HEADER_BYTES - len(head))
            head += line
            if len(head) == HEADER_BYTES:
                raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            if not line.endswith(b"\n"):
                return b""
        return head

    def _check_body(self) -> None:
        """Refuse a body that is malformed or too large; any other is ignored."""
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        if codings:
            if [coding.strip().lower() for coding in codings] != ["chunked"]:
                raise _Refused(HTTPStatus.NOT_IMPLEMENTED)
            self._check_chunks()
        elif lengths:
            if len(lengths) > 1 or not re.fullmatch(r"[0-9]+", length := lengths[0].strip()):
                raise _Refused(HTTPStatus.BAD_REQUEST)
            if len(length) > len(str(BODY_BYTES)) or int(length) > BODY_BYTES:
                raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def _check_chunks(self) -> None:
        received = 0
        while True:
            match = _CHUNK.fullmatch(self.rfile.readline(_CHUNK_LINE_BYTES))
            if not match:
                raise _Refused(HTTPStatus.BAD_REQUEST)
            size = int(match[1], 16)
            if size == 0:
                return
            received += size
            if received > BODY_BYTES:
                raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            if not self.rfile.read(size + 2).endswith(b"\r\n"):
                raise _Refused(HTTPStatus.BAD_REQUEST)

    def _answer(self) -> Answer:
        try:
            path = unquote(urlsplit(self.requestline.split()[1]).path)
        except ValueError:
            raise _Refused(HTTPStatus.BAD_REQUEST) from None
        return self.server.application.answer(self.command, path, ", ".join(self.headers.get_all("Accept", [])))

    def _send(self, answer: Answer) -> None:
        self.protocol_version = "HTTP/1.1" if self.request_version == "HTTP/1.1" else "HTTP/1.0"
        self.request_version = self.protocol_version  # HTTP/0.9 would get no status line
        self.send_response_only(answer.status)
        for name, value in (*answer.headers.items(), ("Date", self.date_time_string()), ("Connection", "close")):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _linger(self) -> None:
        """Read what the client still sends: closing with unread data resets the connection, and the answer is lost."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER_SECONDS)
            for _ in range(_LINGER_READS):
                if not self.connection.recv(65_536):
                    break
