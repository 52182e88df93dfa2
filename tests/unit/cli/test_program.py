"""Commands that tests run in their own process are alone in it, as in a process of their own."""

import logging
import threading
from collections.abc import Iterator

import pytest

from cdc.cli import main
from tests.program import run_here


@pytest.fixture
def other_test() -> Iterator[None]:
    """A thread of an earlier test, whose client of Kafka logs that its broker is gone."""
    ended = threading.Event()

    def log() -> None:
        while not ended.wait(0.001):
            logging.getLogger("cdc.kafka.librdkafka").warning("connection refused")

    thread = threading.Thread(target=log)
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.mark.usefixtures("other_test")
def test_log_lines_of_other_threads_are_not_in_the_output_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(_: object) -> int:
        threading.Event().wait(0.05)
        own = threading.Thread(target=logging.getLogger("cdc").warning, args=("of its own",))
        own.start()
        own.join()
        return 3

    monkeypatch.setattr(main, "run", command)
    done = run_here((), {})
    assert (done.returncode, done.stderr) == (3, "of its own\n")
