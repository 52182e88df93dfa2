"""Log lines as text and as JSON on standard error."""

import io
import json
import logging
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from cdc.config.masking import MASK, scrubber
from cdc.logs import setup as logs
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


def test_text_has_time_level_message_and_fields(capsys: Capture) -> None:
    logs.configure("text", verbose=False)
    log.info("confirmed %d", 3, extra={"lsn": str(LSN(16)), "why": "two words", "none": None})
    (line,) = lines(capsys)
    time, rest = line.split(" ", 1)
    assert rest == 'info    confirmed 3 lsn=0/10 why="two words" none=-'
    assert len(time) == len("2026-01-31T17:45:00.123Z")
    assert time[10] + time[-1] == "TZ"


def test_json_has_one_object_per_line(capsys: Capture) -> None:
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


def test_a_field_with_a_quote_is_separated_from_the_next(capsys: Capture) -> None:
    logs.configure("text", verbose=False)
    log.info("odd", extra={"reason": 'say "no" lsn=0/99'})
    (line,) = lines(capsys)
    assert line.endswith(r'reason="say \"no\" lsn=0/99"')


@pytest.mark.parametrize(("verbose", "count"), [(False, 0), (True, 1)])
def test_debug_lines_need_verbose(verbose: bool, count: int, capsys: Capture) -> None:
    logs.configure("text", verbose=verbose)
    log.debug("details")
    assert len(lines(capsys)) == count


def test_each_line_is_written_once_after_configuring_twice(capsys: Capture) -> None:
    logs.configure("text", verbose=False)
    logs.configure("text", verbose=False)
    log.info("once")
    assert len(lines(capsys)) == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_formatting_error_is_reported_without_values(log_format: str, capsys: Capture) -> None:
    logs.configure(log_format, verbose=False)
    log.info("%d", "hunter2")
    log.info("next")
    first, second = lines(capsys)
    assert first == "info of cdc.test cannot be formatted: TypeError"
    assert "next" in second


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_text_that_is_not_utf_8_is_escaped(log_format: str, capsys: Capture) -> None:
    logs.configure(log_format, verbose=False)
    log.info("name \udcff", extra={"path": "\udcfe"})
    (line,) = lines(capsys)
    assert r"name \udcff" in line.replace(r"\\", "\\")
    assert r"\udcfe" in line.replace(r"\\", "\\")


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("secret", ["hunter2", 'a"b\\c', "two  words", "line\nbreak", "it's", "p@ss/w%d", "$HOME é"])
def test_no_part_of_a_record_contains_a_secret_b23(log_format: str, secret: str, capsys: Capture) -> None:
    logs.hide(scrubber([secret]))
    logs.configure(log_format, verbose=False)
    log.info("with %s", secret, extra={"plain": secret, "nested": {"a": [secret]}, "number": 5})
    try:
        raise ValueError(secret)
    except ValueError:
        log.exception("failed %r", secret)
    logs.print_line(f"said {secret}, {json.dumps(secret)}, {quote(secret, safe='')}, {' '.join(secret.split())}")
    written = "\n".join(lines(capsys))
    for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")):
        assert form not in written
    assert written.count(MASK) == 9
    assert "number" in written


def test_a_printed_line_follows_pending_log_lines(capsys: Capture) -> None:
    logs.configure("text", verbose=True)
    for number in range(100):
        log.info("line %d", number)
    logs.print_line("cdc-publisher: the end")
    written = lines(capsys)
    assert [line.split("line ")[-1] for line in written] == [*map(str, range(100)), "cdc-publisher: the end"]


def test_a_line_is_printed_at_once_without_configured_logs_b23(capsys: Capture) -> None:
    logs.hide(lambda text: text.replace("hunter2", "********"))
    logs.print_line("no hunter2")
    assert capsys.readouterr().err == "no ********\n"


def test_a_warning_without_configured_logs_is_scrubbed_b23(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.hide(lambda text: text.replace("hunter2", "********"))
    assert logging.lastResort
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    log.warning("no %s", "hunter2")
    assert capsys.readouterr().err == "no ********\n"


def test_suppressed_messages_are_reported_with_their_count_at_exit(capsys: Capture) -> None:
    logs.configure("text", verbose=False)
    for number in range(30):
        log.warning("%s is away", number)
    logs.print_line("the end")
    *written, last = lines(capsys)
    assert [line.split("warning ")[1] for line in written] == [
        *(f"{n} is away" for n in range(5)),
        "29 is away repeated=24",
    ]
    assert last == "the end"


def test_verbose_writes_every_line(capsys: Capture) -> None:
    logs.configure("text", verbose=True)
    for number in range(30):
        log.warning("%s is away", number)
        librdkafka.error("FAIL [x] [thrd:h:1]: failed")
    assert len(lines(capsys)) == 60


def test_suppressed_messages_are_reported_when_their_window_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("cdc.logs.writer._LOOK_SECONDS", 0.01)
    logs.configure("text", verbose=False)
    for _ in range(7):
        log.warning("again")
    monkeypatch.setattr("cdc.logs.rate_limit.WINDOW_SECONDS", 0)
    deadline = time.monotonic() + 30
    while "repeated=1" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stream.getvalue().count("again") == 6


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_need_a_terminal_and_respect_no_color(
    environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    for name, value in {"NO_COLOR": "", "TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    for log_format, expected in (("text", coloured), ("json", False)):
        logs.configure(log_format, verbose=False)
        log.warning("colours")
        logs.close()
        assert ("\x1b[33m" in terminal.getvalue()) is expected
        terminal.truncate(0)


def test_json_lines_have_the_context_and_text_lines_do_not(capsys: Capture) -> None:
    for log_format in ("json", "text"):
        logs.configure(log_format, verbose=False, context={"slot": "shop"})
        log.info("streaming")
    written, plain = lines(capsys)
    assert json.loads(written)["slot"] == "shop"
    assert "shop" not in plain
