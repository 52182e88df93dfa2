"""`status --watch` in a real terminal, beside a real publisher."""

import re
import signal
import socket
import threading

import pytest

from tests.impostor import Impostor
from tests.load import Load
from tests.pipeline import PATIENCE, Pipeline
from tests.terminal import Terminal

LEAVE_ALTERNATE_SCREEN = b"\x1b[?1049l"
SHOW_CURSOR = b"\x1b[?25h"
COLOURS = re.compile(rb"\x1b\[[0-9;]*[349][0-7][0-9;]*m")


def listen(pipeline: Pipeline) -> str:
    """Configure a free address for the publisher's endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    pipeline.settings["http"] = {"listen": address}
    return address


def watching(pipeline: Pipeline, columns: int = 100, lines: int = 34, **environment: str) -> Terminal:
    command = pipeline.command("status", "--watch", "--interval", "0.2")
    return Terminal(command, columns, lines, env=environment)


def delivered(shown: str) -> int:
    """The number in the line of totals; 0 without such a line."""
    found = re.search(r"([\d,]+) delivered", shown)
    return int(found[1].replace(",", "")) if found else 0


def ends(shown: str) -> bool:
    """Check that the last line is that of the screen."""
    return shown.endswith("Ctrl-C leaves")


def is_whole(shown: str) -> bool:
    """Check that the screen is drawn from its first line to its last, and not half of it yet."""
    return shown.startswith("cdc-publisher") and ends(shown)


def left_cleanly(terminal: Terminal) -> bool:
    """Check that the terminal is restored and no error was printed."""
    told = bytes(terminal.raw)
    assert b"Traceback" not in told
    assert told.rindex(LEAVE_ALTERNATE_SCREEN) > len(told) - 100
    assert SHOW_CURSOR in told[-100:]
    return terminal.restored()


@pytest.mark.timeout(240)
def test_the_screen_moves_is_resized_and_outlives_the_publisher(pipeline: Pipeline) -> None:
    address = listen(pipeline)
    running = pipeline.start().streams()
    with watching(pipeline) as terminal:
        with Load(pipeline.dsn, writers=1, pause=0.05):
            source = f"from http://{address}, every 0.2 s"
            first = terminal.until(lambda shown: delivered(shown) > 0 and source in shown.splitlines()[-1], "events")
            assert "● " in first
            assert terminal.until(lambda shown: delivered(shown) > delivered(first), "more events")
            terminal.shows("events/s", "p95", pipeline.topic, "up to")

            for columns, lines in ((60, 20), (140, 40), (80, 24)):
                terminal.resize(columns, lines)
                rows = terminal.until(is_whole, f"{columns} by {lines}").splitlines()
                assert len(rows) == lines
                assert rows[0].startswith("cdc-publisher")
                assert rows[-1].startswith("from http")
        running.kill()
        terminal.shows(f"the publisher does not answer at http://{address}", "● stopped", "no process reads the slot")
        terminal.shows("from the database", "start it with: cdc-publisher start")
        again = pipeline.start().streams()
        terminal.until(lambda shown: "does not answer" not in shown and "pid " in shown, "the publisher again")
        terminal.shows(f"pid {again.process.pid} · up ")
        assert terminal.press_ctrl_c() == 0
        assert left_cleanly(terminal)
        assert COLOURS.search(bytes(terminal.raw))
    assert again.stop() == 0


def test_watch_waits_for_an_unreachable_publisher_without_colour_if_disabled(
    bare_pipeline: Pipeline,
) -> None:
    listen(bare_pipeline)
    bare_pipeline.settings["postgres"]["dsn"] = "postgresql://postgres@127.0.0.1:1/db"
    with watching(bare_pipeline, 80, 24, NO_COLOR="1") as terminal:
        terminal.shows("● unknown", "PostgreSQL cannot be reached", "the database cannot be read")
        terminal.shows("no answer, every 0.2 s")
        assert terminal.signal(signal.SIGTERM) == 0
        assert left_cleanly(terminal)
        assert not COLOURS.search(bytes(terminal.raw))
    with Terminal(bare_pipeline.command("status"), 60, 20) as terminal:
        assert terminal.wait() == 75
        assert "● unknown" in terminal.text
        assert COLOURS.search(bytes(terminal.raw))


def test_watch_ends_at_once_while_the_publisher_does_not_answer(bare_pipeline: Pipeline) -> None:
    """Neither the endpoint nor PostgreSQL says a word: the look that is under way is not waited for."""
    enough = threading.Event()

    def say_nothing(_: socket.socket) -> None:
        enough.wait(PATIENCE)

    with Impostor(say_nothing) as silent:
        bare_pipeline.settings["http"] = {"listen": silent.address}
        bare_pipeline.settings["postgres"]["dsn"] = f"postgresql://postgres@{silent.address}/db"
        with watching(bare_pipeline, 80, 24) as terminal:
            terminal.shows("looking …")
            assert terminal.press_ctrl_c() == 0
            assert left_cleanly(terminal)
            assert "● " not in terminal.text
        enough.set()


def test_wrong_settings_end_it_with_the_terminal_as_it_was(bare_pipeline: Pipeline) -> None:
    bare_pipeline.settings["postgres"].pop("dsn")
    with watching(bare_pipeline) as terminal:
        assert terminal.wait() == 78
        assert terminal.restored()
        assert "[postgres] dsn is required" in terminal.text
