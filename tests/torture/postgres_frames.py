"""PostgreSQL's messages as they pass a proxy: where each ends, and what of the replication stream they say.

<https://www.postgresql.org/docs/current/protocol-message-formats.html>
"""

import asyncio
import re
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Final

from tests.torture.commits import Commits
from tests.torture.watch import TooMany, Unsafe, Watch

_NEGOTIATIONS: Final = {80877103, 80877104}  # SSLRequest, GSSENCRequest: one byte answers them
_XLOG_HEADER: Final = 25
_COPY_HEADER: Final = 5  # 'd' and the length
# The statements of a relay by which it confirms rows, and begins a session.
_CONFIRMED_ROWS: Final = re.compile(rb"cdc_relay.* rows_in_batches = ([0-9]+)", re.DOTALL)
_TAKEN: Final = re.compile(rb"cdc_relay.* set epoch = ", re.DOTALL)


class Tape:
    """What the stream says of all connections together."""

    def __init__(
        self, watch: Watch, placed: Callable[[int, int], None], unsafe: Callable[[Unsafe | TooMany], None]
    ) -> None:
        self.watch = watch
        self.commits = Commits(watch)
        self.placed = placed  # called with each transaction's xid and commit LSN
        self.unsafe = unsafe
        self.sessions = 0  # how often streaming began, or a relay was taken


class PostgresFrames:
    """One connection's messages in both directions, passed to `tape` when they arrive."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._started = False
        self._answers = 0  # single bytes that the server still owes
        self.is_stream = False
        self.wal_end = 0  # the highest that the server gave
        self._commit_lsn = 0
        self._rows = 0

    def up(self, data: bytearray) -> Iterator[bytes]:
        """Take the complete messages of the client off the front of `data`."""
        while frame := self._client_frame(data):
            self._heard_client(frame)
            yield frame

    def down(self, data: bytearray) -> Iterator[bytes]:
        """Take the complete messages of the server off the front of `data`."""
        while frame := self._server_frame(data):
            self._heard_server(frame)
            yield frame

    def passing(self, frame: bytes) -> None:
        """A message of the server is about to reach the client."""

    def _client_frame(self, data: bytearray) -> bytes:
        return _take(data, 1 if self._started else 0)

    def _server_frame(self, data: bytearray) -> bytes:
        if self._answers and data:
            self._answers -= 1
            answer = bytes(data[:1])
            del data[:1]
            return answer
        return _take(data, 1)

    def _heard_client(self, frame: bytes) -> None:
        if not self._started:
            if int.from_bytes(frame[4:8], "big") in _NEGOTIATIONS:
                self._answers += 1
            else:
                self._started = True
        elif frame.startswith(b"Q") and b"START_REPLICATION" in frame:
            self.is_stream = True
        elif self.is_stream and frame[:1] == b"d" and frame[_COPY_HEADER : _COPY_HEADER + 1] == b"r":
            (flush,) = struct.unpack_from(">Q", frame, _COPY_HEADER + 9)
            for finding in self._tape.watch.status(flush):
                self._tape.unsafe(finding)
        elif frame.startswith(b"Q"):
            self._heard_relay(frame)

    def _heard_relay(self, statement: bytes) -> None:
        if found := _CONFIRMED_ROWS.search(statement):
            for finding in self._tape.watch.count(int(found[1])):
                self._tape.unsafe(finding)
        elif _TAKEN.search(statement):
            self._tape.sessions += 1

    def _heard_server(self, frame: bytes) -> None:
        if self.is_stream and frame[:1] == b"W":  # CopyBothResponse
            self._tape.sessions += 1
        if not self.is_stream or frame[:1] != b"d":
            return
        kind = frame[_COPY_HEADER : _COPY_HEADER + 1]
        if kind == b"k":
            self.wal_end = max(self.wal_end, *struct.unpack_from(">Q", frame, _COPY_HEADER + 1))
        elif kind == b"w":
            self._heard_change(frame, _COPY_HEADER + _XLOG_HEADER)

    def _heard_change(self, frame: bytes, at: int) -> None:
        kind = frame[at : at + 1]
        if kind == b"B":
            self._commit_lsn, _, xid = struct.unpack_from(">QqI", frame, at + 1)
            self._rows = 0
            self._tape.placed(xid, self._commit_lsn)
            self._tape.watch.begin(self._commit_lsn)
        elif kind == b"I":
            self._rows += 1
        elif kind == b"C":
            commit_lsn, end_lsn = struct.unpack_from(">QQ", frame, at + 2)
            self.wal_end = max(self.wal_end, end_lsn)
            self._tape.watch.commit(commit_lsn, end_lsn, self._rows)

    def keepalive(self) -> bytes:
        """A keepalive that this server could send now, and that asks for an answer."""
        return b"d" + struct.pack(">IcQq?", 4 + 18, b"k", self.wal_end, 0, True)


def error_response(sqlstate: str, text: str) -> bytes:
    """A FATAL ErrorResponse."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": text}
    body = b"".join(f"{code}{value}".encode() + b"\0" for code, value in fields.items()) + b"\0"
    return b"E" + struct.pack(">I", 4 + len(body)) + body


def refusal(
    sqlstate: str, text: str
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]:
    """Takes part in the handshake for as long as a server would that then refuses with this error."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            size, code = struct.unpack(">II", await reader.readexactly(8))
            if code not in _NEGOTIATIONS:
                await reader.readexactly(size - 8)
                break
            writer.write(b"N")
        writer.write(error_response(sqlstate, text))

    return answer


def _take(data: bytearray, kind: int) -> bytes:
    """One message off the front of `data`, or nothing; `kind` is the number of bytes before its length."""
    if len(data) < kind + 4:
        return b""
    size = kind + int.from_bytes(data[kind : kind + 4], "big")
    if len(data) < size:
        return b""
    frame = bytes(data[:size])
    del data[:size]
    return frame
