"""A pooler before PostgreSQL: PgBouncer where it is installed, and a stand-in that answers as it does."""

import contextlib
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from cdc.local import accounts
from cdc.local.ports import Ports
from tests.pipeline import eventually

# Since 1.23 PgBouncer lets replication through. Debian's package is installed by `.ci/run`.
POOLERS = ["stand-in", "later stand-in", *(["pgbouncer"] if shutil.which("pgbouncer") else [])]

_CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={upstream} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
"""
_REFUSAL = b"SFATAL\0C08P01\0Munsupported startup parameter: replication\0\0"


@contextlib.contextmanager
def pooler(kind: str, upstream: int, folder: Path) -> Iterator[int]:
    """The port of a pooler before the server at port `upstream`."""
    made = _pgbouncer(upstream, folder) if kind == "pgbouncer" else _stand_in(upstream, replicates="later" in kind)
    with made as port:
        yield port


@contextlib.contextmanager
def _pgbouncer(upstream: int, folder: Path) -> Iterator[int]:
    port = Ports(folder / "ports.json").get("pgbouncer")
    file = folder / "pgbouncer.ini"
    file.write_text(_CONFIGURATION.format(upstream=upstream, port=port))
    program = shutil.which("pgbouncer")
    assert program
    with (folder / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen([program, str(file)], user=accounts.unprivileged(), stdout=log, stderr=log)
    try:
        eventually(lambda: _answers(port), f"PgBouncer answers: {(folder / 'pgbouncer.log').read_text()}")
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def _stand_in(upstream: int, *, replicates: bool) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, upstream, replicates), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)  # wakes the thread


def _accept(server: socket.socket, upstream: int, replicates: bool) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            threading.Thread(target=_serve, args=(client, upstream, replicates), daemon=True).start()


def _serve(client: socket.socket, upstream: int, replicates: bool) -> None:
    with contextlib.suppress(OSError), client, client.makefile("rb") as reader:
        startup = _startup(client, reader)
        if b"\0replication\0" in startup and not replicates:
            client.sendall(b"E" + struct.pack("!i", 4 + len(_REFUSAL)) + _REFUSAL)
            return
        with socket.create_connection(("127.0.0.1", upstream)) as server, server.makefile("rb") as answers:
            server.sendall(startup)
            threading.Thread(target=_copy, args=(reader, server), daemon=True).start()
            while head := answers.read(5):
                body = answers.read(struct.unpack("!i", head[1:])[0] - 4)
                # Of a process, which changes with each transaction, a pooler cannot tell the number.
                client.sendall(head + (struct.pack("!ii", 7, 7) if head[:1] == b"K" else body))


def _startup(client: socket.socket, reader: BufferedReader) -> bytes:
    """The first packet that asks for no encryption."""
    while True:
        length = reader.read(4)
        if len(length) < 4:
            raise ConnectionError("the client does without a connection")
        body = reader.read(struct.unpack("!i", length)[0] - 4)
        if struct.unpack("!i", body[:4])[0] == 196608:  # version 3.0
            return length + body
        client.sendall(b"N")


def _copy(reader: BufferedReader, server: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := reader.read1(65536):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)
