"""`python -m tests.screenshots [NAME…]`: make the pictures of docs/images that show the program at work.

Takes three minutes: the demo runs once, and then a publisher of the same shop for a minute under a modest load.
"""

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import psycopg
from rich.console import Console

from cdc.config.settings import Settings
from cdc.demo.environment import Environment
from cdc.demo.writers import TABLE, Writers
from cdc.local import processes
from cdc.status.client import NoAnswer, ask
from tests import ROOT
from tests.pipeline import eventually
from tests.screenshots import page, picture
from tests.terminal import Terminal

IMAGES: Final = ROOT / "docs" / "images"
PROGRAM: Final = [sys.executable, "-m", "cdc"]
_LOAD_SECONDS: Final = 75
_SHOP_SECONDS: Final = 300  # much longer, so that its one large transaction does not dwarf the rest


@click.command()
@click.argument("names", nargs=-1, metavar="[demo|status-watch|check|status-page]...")
def main(names: tuple[str, ...]) -> None:
    """Make the named pictures, or all of them."""
    wanted = set(names or ("demo", "status-watch", "check", "status-page"))
    # PostgreSQL's account, which is another under root, must be able to enter.
    with tempfile.TemporaryDirectory(prefix="cdc-screenshots-") as folder:
        Path(folder).chmod(0o755)
        if "demo" in wanted:
            demo(Path(folder) / "demo")
        if wanted - {"demo"}:
            at_work(Path(folder) / "work", wanted)


def demo(home: Path) -> None:
    """The demo as it ends."""
    with Terminal([*PROGRAM, "demo", "--home", str(home)], 110, 40) as terminal:
        code = terminal.wait(170)
        assert code == 0, terminal.text
        picture.take(terminal.cells(), "cdc-publisher demo", IMAGES / "demo.png")


def at_work(home: Path, wanted: set[str]) -> None:
    """A publisher of the shop, looked at from several sides."""
    with Environment(home) as environment, contextlib.ExitStack() as exits:
        _, settings = environment.up(Console(stderr=True))
        with psycopg.connect(settings.postgres.dsn, autocommit=True) as connection:
            connection.execute(TABLE)
        _set_limit(settings, "64MB")  # one that can be seen
        program = [*PROGRAM, "--config", str(environment.config)]
        listen = exits.enter_context(_publisher(program, environment.log))
        writers = Writers(settings.postgres.dsn, _SHOP_SECONDS)
        exits.callback(writers.stop)
        writers.start()
        time.sleep(_LOAD_SECONDS)
        if "status-watch" in wanted:
            _watch([*program, "--set", f"http.listen={listen}", "status", "--watch"])
        if "status-page" in wanted:
            page.take(f"http://{listen}/", IMAGES)
        if "check" in wanted:
            _set_limit(settings, "-1")  # worth a warning
            _check(program, settings.avro.schemas, home)


def _set_limit(settings: Settings, limit: str) -> None:
    with psycopg.connect(settings.postgres.dsn, autocommit=True) as connection:
        connection.execute(f"alter system set max_slot_wal_keep_size = '{limit}'".encode())
        connection.execute("select pg_reload_conf()")


def _watch(command: list[str]) -> None:
    with Terminal(command, 100, 32) as terminal:
        terminal.shows("Ctrl-C", "events/s")
        time.sleep(2)
        picture.take(terminal.cells(), "cdc-publisher status --watch", IMAGES / "status-watch.png")
        assert terminal.press_ctrl_c() == 0


def _check(program: list[str], schemas: Path, folder: Path) -> None:
    """Contracts under a short name: where they are on this machine is nobody's business."""
    (folder / "schemas").symlink_to(schemas, target_is_directory=True)
    with Terminal([*program, "--set", "avro.schemas=schemas", "check"], 110, 60, cwd=folder) as terminal:
        terminal.wait()
        picture.take(terminal.cells(), "cdc-publisher check", IMAGES / "check.png")


@contextlib.contextmanager
def _publisher(program: list[str], log: Path) -> Iterator[str]:
    """A publisher with an endpoint; where that listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
    command = [*program, "--set", f"http.listen={listen}", "start"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=processes.environment(without="CDC_ PG"))
    try:
        eventually(lambda: _answers(listen), "the publisher streams")
        yield listen
    finally:
        process.terminate()
        process.wait(60)


def _answers(listen: str) -> bool:
    with contextlib.suppress(NoAnswer):
        return bool(ask(f"http://{listen}").ready)
    return False


if __name__ == "__main__":
    main()
