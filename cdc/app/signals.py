"""SIGTERM and SIGINT for commands that run until they are stopped."""

import logging
import os
import signal
import threading
from types import FrameType


def stop_on_signals(stop: threading.Event, log: logging.Logger) -> None:
    """Set `stop` at the first SIGTERM or SIGINT; exit at once at the second."""

    def handle(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        log.info("stopping", extra={"event": "stopping", "signal": signal.Signals(number).name})
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
