"""The HTTP server: a few threads that answer from what the publisher's loop has written down.

The rule: it reads, and waits for nobody. No lock is shared with the loop, and no request leads to another server.
"""

import contextlib
import logging
import threading
import time
from types import TracebackType
from typing import Final, Self

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.task import ThreadedTaskDispatcher

from cdc.http import address
from cdc.http.answers import HEADERS
from cdc.http.application import Application
from cdc.http.channels import CONNECTIONS, Listener, quieten
from cdc.status.report import Identity
from cdc.telemetry.metrics import Vitals

log = logging.getLogger(__name__)

THREADS: Final = 2
HEADER_BYTES: Final = 16_384  # browsers send the cookies of everything else on localhost
BODY_BYTES: Final = 1_024  # no request here has one
_TURN_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 2.0


class Server:
    """A context manager: listens at `listen` (host:port) from enter to exit.

    Enter raises ConfigError when it cannot.
    """

    def __init__(self, listen: str, vitals: Vitals, identity: Identity) -> None:
        self._listen = listen
        self._application = Application(vitals, identity)
        self._stopped = threading.Event()
        self._map: dict[int, object] = {}  # descriptors, as the library's loop has them
        self.addresses: list[str] = []
        """Where it listens, as host:port."""

    def __enter__(self) -> Self:
        quieten()
        sockets = address.bind(self._listen)
        self.addresses = [address.text(bound) for bound in sockets]
        self._dispatcher = ThreadedTaskDispatcher()
        self._dispatcher.set_thread_count(THREADS)
        self._listeners = [
            Listener(
                self._application,
                map=self._map,
                _sock=bound,
                dispatcher=self._dispatcher,
                adj=_adjustments(),
                sockinfo=(bound.family, bound.type, bound.proto, bound.getsockname()),
                bind_socket=False,
            )
            for bound in sockets
        ]
        for listener in self._listeners:
            listener.headers = HEADERS
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        log.info("listening", extra={"http": ", ".join(f"http://{where}/" for where in self.addresses)})
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stopped.set()
        self._listeners[0].pull_trigger()
        self._thread.join(_STOP_SECONDS)
        self._dispatcher.shutdown(timeout=_STOP_SECONDS)
        with contextlib.suppress(OSError):
            wasyncore.close_all(self._map)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                for listener in self._listeners:
                    listener.tidy(time.time())
                wasyncore.loop(timeout=_TURN_SECONDS, use_poll=True, map=self._map, count=1)
            except Exception:  # of any kind: when this thread dies, every probe fails
                log.exception("the HTTP server goes on after an error")
                self._stopped.wait(_TURN_SECONDS)


def _adjustments() -> Adjustments:
    return Adjustments(
        threads=THREADS,
        ident="",  # the name of the library is of no use but to who looks for its weaknesses
        max_request_header_size=HEADER_BYTES,
        max_request_body_size=BODY_BYTES,
        connection_limit=1_000_000,  # Listener makes room instead
        log_socket_errors=False,  # a client that hangs up is no news
        asyncore_use_poll=True,
        backlog=CONNECTIONS,
    )
