"""Log lines: a sentence and fields, as text and as JSON, on standard error."""

import io
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from cdc import logs
from cdc.config.masking import MASK, scrubber
from cdc.lsn import LSN

log = logging.getLogger("cdc.test")
librdkafka = logging.getLogger("cdc.kafka.librdkafka")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logs.close()
    logs.hide(str)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: Capture) -> list[str]:
    logs.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_text_is_time_level_sentence_and_fields(capsys: Capture) -> None:
    logs.configure("text", verbose=False)
    log.info("confirmed %d", 3, extra={"lsn": str(LSN(16)), "why": "two words", "none": None})
    (line,) = lines(capsys)
    time, rest = line.split(" ", 1)
    assert rest == 'info    confirmed 3 lsn=0/10 why="two words" none=-'
    assert len(time) == len("2026-01-31T17:45:00.123Z")
    assert time[10] + time[-1] == "TZ"


def test_json_is_one_object_a_line(capsys: Capture) -> None:
    logs.configure("json", verbose=False)
    log.warning('a "quoted" %s', "line\nbreak", extra={"lsn": "0/10", "n": 1.5, "none": None, "path": set})
    (line,) = lines(capsys)
    fields = json.loads(line)
    assert fields.pop("time").endswith("Z")
    assert fields.pop("path") == "<class 'set'>"
    assert fields == {
        "level": "warning",
        "logger": "cdc.test",
        "message": 'a "quoted" line\nbreak',
        "lsn": "0/10",
        "n": 1.5,
        "none": None,
    }


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_comes_with_its_traceback(log_format: str, capsys: Capture) -> None:
    logs.configure(log_format, verbose=False)
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    text = "\n".join(lines(capsys))
    assert "ValueError: broken" in text
    assert "Traceback" in text


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("value", ["é😀", 1 << 63, LSN(1 << 63), object, b"\xff", {"a": 1}])
def test_no_field_breaks_a_line(log_format: str, value: object, capsys: Capture) -> None:
    logs.configure(log_format, verbose=False)
    log.info("odd", extra={"value": value})
    (line,) = lines(capsys)
    assert "odd" in line
    assert "Logging error" not in line


def test_a_field_with_a_line_break_stays_on_its_line(capsys: Capture) -> None:
    logs.configure("text", verbose=False)
    log.info("odd", extra={"reason": "first\nsecond"})
    assert len(lines(capsys)) == 1


def test_a_field_with_a_quote_is_told_from_the_next(capsys: Capture) -> None:
    logs.configure("text", verbose=False)
    log.info("odd", extra={"reason": 'say "no" lsn=0/99'})
    (line,) = lines(capsys)
    assert line.endswith(r'reason="say \"no\" lsn=0/99"')


@pytest.mark.parametrize(("verbose", "count"), [(False, 0), (True, 1)])
def test_debug_lines_are_for_the_verbose(verbose: bool, count: int, capsys: Capture) -> None:
    logs.configure("text", verbose=verbose)
    log.debug("details")
    assert len(lines(capsys)) == count


def test_configured_twice_each_line_comes_once(capsys: Capture) -> None:
    logs.configure("text", verbose=False)
    logs.configure("text", verbose=False)
    log.info("once")
    assert len(lines(capsys)) == 1


def record(
    message: str, created: float, name: str = "cdc.kafka.librdkafka", level: int = logging.ERROR
) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": name, "msg": message, "levelno": level, "levelname": "ANY"})
    made.created = created
    return made


def test_what_librdkafka_repeats_comes_once_in_thirty_seconds() -> None:
    repeats = logs._Repeats()
    message = "FAIL [rdkafka#producer-1] [thrd:h:1/bootstrap]: h:1/bootstrap: Connect failed (after {} ms)"
    seen = [repeats.filter(record(message.format(second), 1000.0 + second)) for second in range(0, 65, 5)]
    assert [place for place, passed in enumerate(seen) if passed] == [0, 6, 12]


def test_another_broker_and_another_logger_are_no_repeats() -> None:
    repeats = logs._Repeats()
    assert repeats.filter(record("FAIL [x] [thrd:h:1/bootstrap]: failed", 1000.0))
    assert repeats.filter(record("FAIL [x] [thrd:h:2/bootstrap]: failed", 1000.0))
    assert repeats.filter(record("ERROR [x] [thrd:h:1/bootstrap]: failed", 1000.0))
    for _ in range(3):
        assert repeats.filter(record("progress", 1000.0, name="cdc.progress"))


def test_what_librdkafka_tells_on_request_is_no_repeat() -> None:
    repeats = logs._Repeats()
    for _ in range(3):
        assert repeats.filter(record("BROKER [x] [thrd:h:1/bootstrap]: details", 1000.0, level=logging.DEBUG))


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_cannot_be_formatted_is_told_without_its_values(log_format: str, capsys: Capture) -> None:
    logs.configure(log_format, verbose=False)
    log.info("%d", "hunter2")
    log.info("next")
    first, second = lines(capsys)
    assert first == "info of cdc.test cannot be formatted: TypeError"
    assert "next" in second


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_text_that_is_no_utf_8_is_escaped(log_format: str, capsys: Capture) -> None:
    logs.configure(log_format, verbose=False)
    log.info("name \udcff", extra={"path": "\udcfe"})
    (line,) = lines(capsys)
    assert r"name \udcff" in line.replace(r"\\", "\\")
    assert r"\udcfe" in line.replace(r"\\", "\\")


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("secret", ["hunter2", 'a"b\\c', "two  words", "line\nbreak", "it's", "p@ss/w%d", "$HOME é"])
def test_no_part_of_a_record_holds_a_secret_b23(log_format: str, secret: str, capsys: Capture) -> None:
    logs.hide(scrubber([secret]))
    logs.configure(log_format, verbose=False)
    log.info("with %s", secret, extra={"plain": secret, "nested": {"a": [secret]}, "number": 5})
    try:
        raise ValueError(secret)
    except ValueError:
        log.exception("failed %r", secret)
    logs.say(f"said {secret}, {json.dumps(secret)}, {quote(secret, safe='')}, {' '.join(secret.split())}")
    written = "\n".join(lines(capsys))
    for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")):
        assert form not in written
    assert written.count(MASK) == 9
    assert "number" in written


def test_what_is_said_comes_behind_what_was_logged(capsys: Capture) -> None:
    logs.configure("text", verbose=False)
    for number in range(100):
        log.info("line %d", number)
    logs.say("cdc-publisher: the end")
    written = lines(capsys)
    assert [line.split("line ")[-1] for line in written] == [*map(str, range(100)), "cdc-publisher: the end"]


def test_what_is_said_without_logs_is_written_at_once_b23(capsys: Capture) -> None:
    logs.hide(lambda text: text.replace("hunter2", "********"))
    logs.say("no hunter2")
    assert capsys.readouterr().err == "no ********\n"


def test_a_warning_without_logs_is_scrubbed_too_b23(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.hide(lambda text: text.replace("hunter2", "********"))
    assert logging.lastResort
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log.warning("no %s", "hunter2")
    assert capsys.readouterr().err == "no ********\n"


class Slow(io.StringIO):
    """A stream that takes nothing until it may, and refuses what it is told to refuse."""

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


def writer(stream: Any, room: int = 10) -> logs.Writer:
    return logs.Writer(stream, "{} are missing".format, room)


def test_lines_beyond_the_room_are_told_where_they_are_missing_d9() -> None:
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


def test_who_logs_never_waits_and_an_end_waits_so_long_only_d9() -> None:
    stream = Slow()
    slow = writer(stream)
    started = time.monotonic()
    for number in range(10_000):
        slow.put(str(number))
    assert time.monotonic() - started < 1
    slow.close(0.1)
    assert 0.1 <= time.monotonic() - started < 2
    stream.may.set()


def test_lines_that_a_full_disk_refused_are_told_once_d9() -> None:
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


def test_a_closed_stream_and_none_at_all_are_survived_d9() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        nobody = writer(stream)
        nobody.put("x")
        nobody.close(5)


def test_a_pipe_that_nobody_reads_is_survived_and_a_busy_one_waited_for_d9() -> None:
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
        slow.put("nobody reads this")
        slow.close(5)
