"""A token endpoint of OAuth 2 over HTTP: gives an unsecured token to whoever knows the client's secret."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Tokens:
    """Runs while its `with` lasts."""

    def __init__(self, client: str, secret: str) -> None:
        self.basic = f"Basic {base64.b64encode(f'{client}:{secret}'.encode()).decode()}"
        self.client = client

    def __enter__(self) -> "Tokens":
        self._server = _Server(("127.0.0.1", 0), self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="token endpoint")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, authorization: str) -> tuple[int, dict[str, object]]:
        """Status and document."""
        if authorization != self.basic:
            return 401, {"error": "invalid_client", "error_description": "the client is not known"}
        now = int(time.time())
        claims = {"sub": self.client, "iat": now, "exp": now + 3600}
        return 200, {"access_token": f"{_part({'alg': 'none'})}.{_part(claims)}.", "token_type": "Bearer"}


def _part(document: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # closing the server waits for them: no socket outlives a test

    def __init__(self, address: tuple[str, int], tokens: Tokens) -> None:
        self.tokens = tokens
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, document = self.server.tokens.answer(self.headers.get("Authorization", ""))
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Not on the tests' output."""
