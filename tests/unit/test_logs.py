"""Log lines: a sentence and fields, as text and as JSON, on standard error."""

import json
import logging
from collections.abc import Iterator

import pytest

from cdc import logs
from cdc.lsn import LSN

log = logging.getLogger("cdc.test")
librdkafka = logging.getLogger("cdc.kafka.librdkafka")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: Capture) -> list[str]:
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


def record(message: str, created: float, name: str = "cdc.kafka.librdkafka") -> logging.LogRecord:
    made = logging.makeLogRecord({"name": name, "msg": message, "levelno": logging.ERROR, "levelname": "ERROR"})
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
