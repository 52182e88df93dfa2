"""Health check of the container: exit code 0 if the publisher is ready, otherwise 1.

Prints the answer to `/readyz` on the port of CDC_HTTP__LISTEN. A publisher that waits for Kafka, or is a standby, is
ready too: see docs/http.md.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException

port = int(os.environ.get("CDC_HTTP__LISTEN", ":8080").rpartition(":")[2])
try:
    connection = HTTPConnection("localhost", port, timeout=4)
    connection.request("GET", "/readyz", headers={"Accept": "text/plain"})
    answer = connection.getresponse()
    print(answer.read(4096).decode(errors="replace").strip())
    sys.exit(0 if answer.status == 200 else 1)
except (OSError, HTTPException) as error:
    print(f"no answer on port {port}: {error}")
    sys.exit(1)
