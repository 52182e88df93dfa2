"""The replication connection: COPY in both directions, on libpq, which frames CopyData.

psycopg has no replication API above its `pq` layer. One thread owns this object.
<https://www.postgresql.org/docs/current/protocol-replication.html>
"""

import select
from typing import Final

import psycopg
from psycopg import pq

from cdc.errors import PostgresError, PostgresUnavailable
from cdc.lsn import LSN
from cdc.postgres.connection import UNUSABLE, connect, result_error
from cdc.replication.publication import PUT_RIGHT

BURST_BYTES: Final = 256 * 1024
"""How much is read at once: enough to share the cost of a call, little enough to reply in time."""

WIDEN: Final = b"SELECT pg_catalog.repeat('x', 100000)"
"""Makes libpq's buffer 128 KiB wide, which begins with 16, grows with the longest message and never shrinks: what has
arrived is then read with an eighth of the calls, which is 0.15 us less for an event."""

STREAM: Final = "cdc-publisher stream"
"""The `application_name` of the connection, which `synchronous_standby_names` may contain."""

_STOP_SECONDS: Final = 5.0

_NOT_CONVERTIBLE: Final = (b"22021", b"22P05")  # invalid or untranslatable characters
_NOT_CONVERTED: Final = "a row has text of the encoding {} that is no Unicode text, and the slot cannot pass it"


class Source:
    """A stream of CopyData frames of one slot. Raises PostgresUnavailable when the connection ends."""

    def __init__(self, dsn: str, name: str = STREAM) -> None:
        self._connection = connect(dsn, replication="database", application_name=name)
        self._connection.add_notice_handler(self._notice)
        self._pgconn = self._connection.pgconn
        self._warning = ""
        self._encoding = self._connection.info.parameter_status("server_encoding") or ""
        if self._encoding == "SQL_ASCII":
            # Otherwise the server checks that text is UTF-8, and ends the stream at the first row where it is not.
            self._command(b"SET client_encoding = 'SQL_ASCII'", pq.ExecStatus.COMMAND_OK)

    @property
    def pid(self) -> int:
        """The pid of the server's process."""
        return self._connection.info.backend_pid

    def identify(self) -> tuple[str, int]:
        """Return the cluster's system identifier and its timeline."""
        result = self._command(b"IDENTIFY_SYSTEM", pq.ExecStatus.TUPLES_OK)
        return (result.get_value(0, 0) or b"").decode(), int(result.get_value(0, 1) or 0)

    def timelines(self, current: int) -> dict[int, LSN]:
        """Return the ends of this server's earlier timelines; empty when they are unknown."""
        if current == 1:
            return {}
        try:
            result = self._command(f"TIMELINE_HISTORY {current}".encode(), pq.ExecStatus.TUPLES_OK)
        except PostgresError:
            return {}  # the file is gone
        lines = (result.get_value(0, 1) or b"").decode(errors="replace").splitlines()
        found = (line.split() for line in lines if not line.lstrip().startswith("#"))
        return {int(fields[0]): LSN.parse(fields[1]) for fields in found if len(fields) > 1}

    def start(self, slot: str, publication: str, *, binary: bool, messages: bool = False) -> None:
        """Start streaming from the slot's own position, with logical messages if they are asked for.

        Raises SlotActive while another process reads it.
        """
        # 0/0 means the slot's position. PostgreSQL silently forwards any other LSN that is below, and silently accepts
        # one that is above the end of the WAL.
        options = f"proto_version '1', publication_names {_literal(publication_list(publication))}"
        if binary:
            options += ", binary 'true'"
        if messages:
            options += ", messages 'true'"
        command = f'START_REPLICATION SLOT "{slot}" LOGICAL 0/0 ({options})'
        self._command(WIDEN, pq.ExecStatus.TUPLES_OK)
        self._command(command.encode(), pq.ExecStatus.COPY_BOTH)

    def _command(self, command: bytes, expected: pq.ExecStatus) -> pq.abc.PGresult:
        try:
            result = self._connection.command(command)
        except psycopg.Error as error:
            raise PostgresUnavailable(f"the replication connection failed: {error}") from None
        if result.status != expected:
            raise result_error(result, command.split(b" (")[0].decode())
        return result

    def read(self) -> list[bytes]:
        """Return the frames that have arrived, up to a burst, without waiting."""
        try:
            frames = self._burst()
        except psycopg.Error as error:
            raise PostgresUnavailable(f"the replication connection ended: {error}") from None
        if self._warning:
            raise PostgresError(
                f"PostgreSQL warns: {self._warning}",
                hint=f"rows may have been skipped; {PUT_RIGHT}",
            )
        return frames

    def _burst(self) -> list[bytes]:
        # Local variables, and no function calls: this runs for each row.
        frames: list[bytes] = []
        size, drained = 0, False
        append, get_copy_data = frames.append, self._pgconn.get_copy_data
        while size < BURST_BYTES:
            length, data = get_copy_data(1)
            if length > 0:
                append(data.tobytes())
                size += length
                drained = False
            elif length < 0:
                self._ended()
            elif drained:
                break
            else:
                self._pgconn.consume_input()
                drained = True
        return frames

    def _ended(self) -> None:
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            error = result_error(result, "streaming")
            if result.error_field(pq.DiagnosticField.SQLSTATE) in _NOT_CONVERTIBLE:
                raise PostgresError(error.message, hint=f"{_NOT_CONVERTED.format(self._encoding)}: {UNUSABLE}")
            raise error
        raise PostgresUnavailable("PostgreSQL ended the replication stream")

    def wait(self, seconds: float) -> None:
        """Wait until a frame may have arrived, for at most `seconds`."""
        if seconds > 0:
            select.select([self._pgconn.socket], [], [], seconds)

    def write(self, frame: bytes) -> None:
        """Send one CopyData frame, without waiting for a slow server."""
        try:
            self._pgconn.put_copy_data(frame)
            self._pgconn.flush()
        except psycopg.Error as error:
            raise PostgresUnavailable(f"the replication connection ended: {error}") from None

    def stop(self) -> None:
        """End COPY and wait for the server's answer, which shows that it has read the last status update."""
        try:
            self._pgconn.nonblocking = 0
            self._pgconn.put_copy_end()
            self._pgconn.flush()
            self._drain()
        except psycopg.Error as error:
            raise PostgresUnavailable(f"the replication connection ended: {error}") from None

    def _drain(self) -> None:
        """Read to the end of the stream: the server may still be sending transactions, which it will send again."""
        while True:
            length, _ = self._pgconn.get_copy_data(1)
            if length < 0:
                break
            if length == 0:
                ready, _, _ = select.select([self._pgconn.socket], [], [], _STOP_SECONDS)
                if not ready:
                    raise PostgresUnavailable(f"PostgreSQL did not end the stream within {_STOP_SECONDS:g} s")
                self._pgconn.consume_input()
        while self._pgconn.get_result() is not None:
            pass

    def close(self) -> None:
        """Close the connection in any state."""
        self._connection.close()

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        # From PostgreSQL 18 on, a missing publication is a warning, and rows are skipped.
        # Its text may be in any language.
        message = diagnostic.message_primary or ""
        if diagnostic.source_function == "LoadPublications" or "skipped loading publication" in message:
            self._warning = message


def publication_list(publication: str) -> str:
    """Quote a name for the value of `publication_names`: a list of identifiers."""
    return '"' + publication.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
