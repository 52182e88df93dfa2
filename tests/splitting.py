"""An outbox in parts: the publisher of each part, the steps from one table to parts, and writers that do not stop."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psycopg

from tests.pipeline import Pipeline, Running, eventually

WRITERS: Final = ("plain", "prepared", "view")
"""How rows are written: by new statements, by prepared ones, and through a view on the table."""


class Unit(Pipeline):
    """A part's publisher, with the settings file that the program wrote."""

    def configure(self) -> Path:
        return self.folder.parent / f"{self.folder.name}.toml"

    @property
    def running(self) -> Running:
        """What was started last."""
        return self._running[-1]


def unit(pipeline: Pipeline, file: Path) -> Unit:
    """Return the publisher of a settings file; its logs are in a folder beside the file."""
    folder = file.with_suffix("")
    folder.mkdir(exist_ok=True)
    settings = {**pipeline.settings, "postgres": {"dsn": pipeline.dsn, "slot": file.stem}}
    return Unit(pipeline.dsn, pipeline.kafka, pipeline.prefix, folder, settings)


def blocks(steps: str) -> list[str]:
    """Return the statements of each transaction among printed steps."""
    return re.findall(r"^BEGIN;\n(.*?)^COMMIT;$", steps, re.MULTILINE | re.DOTALL)


def commands(steps: str) -> list[list[str]]:
    """Return the arguments of each command among printed steps."""
    return [line.split() for line in re.findall(r"^\$ cdc-publisher (.*)$", steps, re.MULTILINE)]


def interrupted(pipeline: Pipeline, statements: str) -> None:
    """Run the statements of a transaction, and lose the connection before its end."""
    with contextlib.suppress(psycopg.errors.LockNotAvailable):
        connection = psycopg.connect(pipeline.dsn)
        try:
            connection.execute(statements.encode())
        finally:
            connection.close()


def committed(pipeline: Pipeline, statements: str) -> None:
    """Run the statements in a transaction; again for as long as a lock is not free."""

    def done() -> bool:
        with contextlib.suppress(psycopg.errors.LockNotAvailable), psycopg.connect(pipeline.dsn) as connection:
            connection.execute(statements.encode())
            return True
        return False

    eventually(done, "the transaction")


@contextlib.contextmanager
def load(pipeline: Pipeline, keys: int) -> Iterator[Callable[[], None]]:
    """Write rows with numbers that ascend for each key; yield what waits until each key has some more rows."""
    numbers = [0] * keys
    stop = threading.Event()
    failures: list[BaseException] = []

    def write(key: int) -> None:
        way = WRITERS[key % len(WRITERS)]
        statement = (
            f"insert into {'events' if way == 'view' else 'outbox'} (aggregatetype, aggregateid, type, payload)"
            " values ('note', %s, 'Noted', jsonb_build_object('seq', %s::int8))"
        ).encode()
        with psycopg.connect(pipeline.dsn, autocommit=True) as connection:
            connection.prepare_threshold = 0 if way == "prepared" else None
            while not stop.is_set():
                connection.execute(statement, [f"key-{key}", numbers[key] + 1])
                numbers[key] += 1
                stop.wait(0.005)

    def guarded(key: int) -> None:
        try:
            write(key)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[key]) for key in range(keys)]
    for thread in threads:
        thread.start()

    def goes_on() -> None:
        goal = [number + 20 for number in numbers]
        eventually(lambda: bool(failures) or all(a >= b for a, b in zip(numbers, goal, strict=True)), "more rows")
        assert not failures, failures

    try:
        yield goes_on
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures
