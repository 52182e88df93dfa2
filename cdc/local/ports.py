"""Port numbers of a stack, chosen once, stored in a file, and replaced only if another program uses them."""

import json
import os
import random
import socket
from pathlib import Path

# Below the kernel's range for outgoing connections (from 32768 on Linux), in which any client may use a port while
# the server is down.
FIRST, LAST = 15000, 32000


def is_free(port: int) -> bool:
    """Return whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        # As servers do, so that connections in TIME_WAIT do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Ports:
    """Port numbers by name, stored in a JSON file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def known(self, name: str) -> int | None:
        """Return the stored port for `name`, or None."""
        return self._read().get(name)

    def get(self, name: str) -> int:
        """Return the stored port for `name`; choose and store a free one if there is none."""
        return self.known(name) or self.renew(name)

    def renew(self, name: str) -> int:
        """Choose and store another free port for `name`."""
        ports = self._read()
        taken = set(ports.values())
        port = next(
            candidate
            for candidate in iter(lambda: random.randrange(FIRST, LAST), 0)
            if candidate not in taken and is_free(candidate)
        )
        self._write({**ports, name: port})
        return port

    def _read(self) -> dict[str, int]:
        try:
            return {str(name): int(port) for name, port in json.loads(self._file.read_text()).items()}
        except (FileNotFoundError, ValueError, AttributeError):
            return {}

    def _write(self, ports: dict[str, int]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_name(f"{self._file.name}.new")
        draft.write_text(json.dumps(ports, indent=2) + "\n")
        os.replace(draft, self._file)
