"""Let test servers start from copies: initdb and Kafka's formatter take longer than the servers take to start."""

import base64
import contextlib
import fcntl
import functools
import os
import secrets
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cdc.local import accounts, packages, processes
from cdc.local import postgres as local
from cdc.local.kafka import KafkaBroker
from cdc.local.postgres import PostgresServer

CACHE = Path(__file__).resolve().parent.parent / ".cache"

_initdb = PostgresServer._initdb
_storage_tool = KafkaBroker._run_storage_tool


def pytest_configure() -> None:
    """Start the servers of this process so, except those of commands that run as processes."""
    patch = pytest.MonkeyPatch()
    patch.setattr(PostgresServer, "_initdb", _copied_cluster)
    patch.setattr(KafkaBroker, "_run_storage_tool", _copied_format)
    # Tests crash servers, not the machine.
    patch.setitem(local.SETTINGS, "fsync", "off")
    patch.setitem(local.SETTINGS, "wal_init_zero", "off")


def _copied_cluster(_: PostgresServer, draft: Path, binaries: Path, user: str | None) -> Iterator[None]:
    template = _cluster(binaries, user)
    yield
    subprocess.run(["cp", "--archive", f"{template}/.", draft], check=True)
    _renew_identifier(draft)


@functools.cache
def _cluster(binaries: Path, user: str | None) -> Path:
    """What initdb of these binaries makes; the first process that needs it runs it."""
    made = (binaries / "postgres").stat()
    template = CACHE / f"initdb-{made.st_ino}-{made.st_mtime_ns}-{os.geteuid()}"
    with made_once(template) as missing:
        if missing:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder).chmod(0o755)
                draft = Path(folder) / "data"
                draft.mkdir(mode=0o700)
                accounts.give(draft, user)
                processes.finish(_initdb(PostgresServer(Path(folder)), draft, binaries, user))
                copy = template.with_suffix(".new")
                processes.remove(copy)
                subprocess.run(["cp", "--archive", draft, copy], check=True)
                copy.rename(template)
    return template


_IDENTIFIER = struct.Struct("=Q")
_CHECKSUM = struct.Struct("=I")
_PLACE_IN_WAL = 24  # of xlp_sysid in XLogLongPageHeaderData


def _renew_identifier(data: Path) -> None:
    """Give a copy a system identifier of its own, by which the publisher and standbys know a server.

    It is the first field of ControlFileData, whose last is a CRC, and is in the first page of each WAL segment.
    https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/catalog/pg_control.h
    """
    identifier = _IDENTIFIER.pack(int(time.time()) << 32 | secrets.randbits(32))
    with (data / "global" / "pg_control").open("r+b") as control:
        held = control.read()
        (size,) = (size for size in range(200, 400, 4) if _CHECKSUM.pack(_crc32c(held[:size])) == held[size : size + 4])
        renewed = identifier + held[_IDENTIFIER.size : size]
        control.seek(0)
        control.write(renewed + _CHECKSUM.pack(_crc32c(renewed)))
    for segment in (data / "pg_wal").glob("[0-9A-F]" * 24):
        with segment.open("r+b") as wal:
            assert wal.read(_PLACE_IN_WAL + _IDENTIFIER.size).endswith(held[: _IDENTIFIER.size])
            wal.seek(_PLACE_IN_WAL)
            wal.write(identifier)


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def _copied_format(broker: KafkaBroker, draft: Path, _: Mapping[str, str]) -> Iterator[None]:
    bootstrap = _bootstrap()
    yield
    draft.mkdir(parents=True)
    (draft / "bootstrap.checkpoint").write_bytes(bootstrap.read_bytes())
    directory = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    written = {"version": 1, "cluster.id": broker.cluster_id, "node.id": broker.node_id, "directory.id": directory}
    (draft / "meta.properties").write_text("".join(f"{name}={value}\n" for name, value in written.items()))


class _Plain(KafkaBroker):
    """A broker without the archive of tests/brokers.py: it is made by one that is formatted already."""

    _java = KafkaBroker._java


@functools.cache
def _bootstrap() -> Path:
    """What Kafka's formatter writes, apart from ids; the first process that needs it runs it."""
    template = CACHE / f"kafka-{packages.KAFKA_VERSION}-bootstrap.checkpoint"
    with made_once(template) as missing:
        if missing:
            with tempfile.TemporaryDirectory() as folder:
                broker, data = _Plain(Path(folder), 1), Path(folder) / "data"
                processes.finish(_storage_tool(broker, data, broker._environment(packages.kafka())))
                copy = template.with_suffix(".new")
                copy.write_bytes((data / "bootstrap.checkpoint").read_bytes())
                copy.rename(template)
    return template


@contextlib.contextmanager
def made_once(file: Path) -> Iterator[bool]:
    """Exclude other processes; whether a file or folder of the cache is missing."""
    CACHE.mkdir(exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not file.exists()
