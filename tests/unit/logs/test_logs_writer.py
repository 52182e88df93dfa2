"""The writer thread of logs: logging never blocks, and dropped lines are counted."""

import io
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from cdc.logs.writer import Writer


class Slow(io.StringIO):
    """A stream that blocks until it is released, and fails for chosen lines."""

    def __init__(self, refuses: Callable[[int], bool] = lambda _: False) -> None:
        super().__init__()
        self.may = threading.Event()
        self.refuses = refuses
        self.writes = 0

    def write(self, text: str) -> int:
        self.may.wait()
        self.writes += 1
        if self.refuses(self.writes):
            raise OSError(28, "No space left on device")
        return super().write(text)


def writer(stream: Any, room: int = 10) -> Writer:
    return Writer(stream, "{} are missing".format, room)


def test_dropped_lines_are_reported_at_their_place_d9() -> None:
    stream = Slow()
    slow = writer(stream)
    slow.put("first")  # taken by the thread, or waiting
    time.sleep(0.05)
    for number in range(25):
        slow.put(str(number))
    stream.may.set()
    while stream.writes < 11:
        time.sleep(0.001)
    slow.put("last")
    slow.close(5)
    assert stream.getvalue().split() == ["first", *map(str, range(10)), "15", "are", "missing", "last"]


def test_logging_never_blocks_and_close_waits_a_limited_time_d9() -> None:
    stream = Slow()
    slow = writer(stream)
    for number in range(10_000):
        slow.put(str(number))
    slow.close(0.1)
    assert stream.getvalue() == ""  # it takes nothing until now, and who had waited for it would wait still
    stream.may.set()


def test_lines_dropped_on_a_full_disk_are_reported_once_d9() -> None:
    stream = Slow(lambda write: write in (2, 3, 4))
    stream.may.set()
    full = writer(stream)
    for number in range(4):
        full.put(str(number))
        time.sleep(0.02)
    full.close(5)
    written = stream.getvalue().split("\n")[:-1]
    missing = [line for line in written if "missing" in line]
    assert missing in (["1 are missing"], ["2 are missing"])
    assert written[0] == "0"
    assert len(written) - len(missing) + int(missing[0].split()[0]) == 4


def test_a_closed_or_missing_stream_is_tolerated_d9() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        before = set(threading.enumerate())
        nobody = writer(stream)
        (thread,) = set(threading.enumerate()) - before
        nobody.put("x")
        nobody.close(5)
        thread.join(5)
        assert not thread.is_alive()


def test_a_broken_pipe_is_tolerated_and_a_full_one_retried_d9() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w") as pipe:
        slow = writer(pipe, room=1000)
        for number in range(1000):
            slow.put(f"{number:0100}")
        time.sleep(0.1)
        received = b""
        while received.count(b"\n") < 1000:
            received += os.read(reading, 65536)
        assert [int(line) for line in received.split()] == list(range(1000))
        os.close(reading)
        slow.put("without a reader")
        slow.close(5)
