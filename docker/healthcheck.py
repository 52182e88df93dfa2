"""The container's health: exit code 0 when the publisher is ready, else 1; its own words for both on standard output.

`/readyz` of the address in CDC_HTTP__LISTEN. Ready is also who waits for Kafka, or stands by: see docs/http.md.
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
