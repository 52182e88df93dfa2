"""Health check of the container: exit code 0 if the publisher is ready, otherwise 1.

Prints the answer to `/readyz` at the address of `[http] listen`. A publisher that waits for Kafka, or is a standby, is
ready too: see docs/http.md. Without `[http] listen` there is nothing to ask, and the container counts as healthy while
its process runs.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException

EVERY = ("", "*", "0.0.0.0", "::")  # addresses to listen at that are none to connect to


def listen() -> str | None:
    """Return the address at which the publisher listens."""
    if written := os.environ.get("CDC_HTTP__LISTEN", "").strip():
        return written
    from cdc.config.loading import load  # takes a third of a second, so only where the settings file decides

    return load().http.listen


where = listen()
if where is None:
    print("[http] listen is not set: nothing to ask")
    sys.exit(0)
host, _, port = where.rpartition(":")
host = host.strip("[]")
try:
    connection = HTTPConnection("localhost" if host in EVERY else host, int(port), timeout=4)
    connection.request("GET", "/readyz", headers={"Accept": "text/plain"})
    answer = connection.getresponse()
    print(answer.read(4096).decode(errors="replace").strip())
    sys.exit(0 if answer.status == 200 else 1)
except (OSError, HTTPException) as error:
    print(f"no answer at {where}: {error}")
    sys.exit(1)
