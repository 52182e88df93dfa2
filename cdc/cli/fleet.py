"""`fleet`: run many publishers in a few instances, on one machine or several."""

import contextlib
import sys
import threading
from pathlib import Path
from typing import Final

import click
import orjson
from rich.console import Console
from rich.table import Table

from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.cli.params import LsnType, Url
from cdc.config.settings import require
from cdc.errors import KafkaError
from cdc.logs import setup as logs
from cdc.logs.format import hidden, plain
from cdc.lsn import LSN

_SECONDS: Final = 10.0

FOLDER: Final = click.Path(path_type=Path)


@click.group()
def fleet() -> None:
    """Run many publishers in a few instances that share them out."""


@fleet.command(epilog=examples("cdc-publisher --config fleet.toml fleet start units"))
@click.argument("folder", type=FOLDER)
@click.pass_obj
def start(invocation: Invocation, folder: Path) -> int:
    """Run an instance: publishers of the units in FOLDER that fall to it, until SIGTERM or SIGINT.

    Each .toml file in FOLDER is a unit: the settings of one publisher. Instances with the same [fleet] name and the
    same Kafka share the units out, and take over from each other.

    The first signal hands the units over, and waits until each is drained. The second signal exits at once, which
    loses no event. SIGHUP reads the folder and the contracts again; the folder is read again within seconds anyway.

    Exit codes: 0 stopped, all events confirmed; 1 error that an operator must resolve; 75 temporary error, start again;
    78 invalid configuration of the fleet. An error of a unit ends nothing but that unit.
    """
    settings, defaults = invocation.fleet()
    require(settings, postgres=False)
    logs.configure(invocation.log_format, verbose=invocation.verbose, context={"fleet": settings.fleet.name})
    from cdc.fleet.children import Children
    from cdc.fleet.run import Fleet, on_signals

    stop, reload = threading.Event(), threading.Event()
    running = Fleet(
        settings,
        defaults,
        folder,
        Children(invocation.log_format, verbose=invocation.verbose),
        stop,
        reload,
    )
    on_signals(stop, reload, running.end_at_once)
    with contextlib.ExitStack() as stack:
        if settings.http.listen is not None:
            from cdc.http.fleet import FleetApplication
            from cdc.http.server import HttpServer

            application = FleetApplication(lambda: running.view, running.alive)
            stack.enter_context(HttpServer(settings.http.listen, application))
        return running.run()


@fleet.command(
    epilog=examples(
        "cdc-publisher --config fleet.toml fleet status",
        "cdc-publisher --config fleet.toml fleet status --url http://10.0.0.7:8080 --url http://10.0.0.8:8080",
        "cdc-publisher --config fleet.toml fleet status --lsn 16/B374D848",
    )
)
@click.option(
    "--url",
    "urls",
    type=Url(),
    multiple=True,
    help="Ask the instance at this URL; repeatable.  [default: the address in [http] listen]",
)
@click.option(
    "--lsn", type=LsnType(), help="Show how far the slot of each unit is from this LSN, W in the steps of a split."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def status(invocation: Invocation, urls: tuple[str, ...], lsn: LSN | None, as_json: bool) -> int:
    """Show the units of the fleet: which instance has each, and its state where that instance was asked.

    The register and the members of the group are read from Kafka; state, lag and errors come from the instances that
    are asked.

    Exit codes: 0 every unit has an instance, and none is known to need an operator; 1 a unit needs an operator; 75 a
    unit has no instance, or is not working; 78 invalid configuration.
    """
    from cdc.fleet.status import survey

    settings, _ = invocation.fleet()
    found = survey(require(settings, postgres=False), urls, _SECONDS)
    if as_json:
        click.echo(orjson.dumps(found.facts()).decode())
        return found.exit_code
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False, emoji=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    distance = () if lsn is None else (f"to {lsn}",)
    for name in ("unit", "partition", "instance", "state", "lag", "events/s", *distance, ""):
        table.add_column(name, overflow="fold")
    for unit in found.units:
        table.add_row(*(plain(hidden(cell)) for cell in unit.cells(lsn)))
    console.print(table)
    for note in found.notes:
        console.print(plain(hidden(note)))
    return found.exit_code


@fleet.command(epilog=examples("cdc-publisher --config fleet.toml fleet forget shop"))
@click.argument("unit")
@click.pass_obj
def forget(invocation: Invocation, unit: str) -> None:
    """Take UNIT out of the register, after its file was taken out of every folder.

    Its partition is free for another unit then. Slot, publication and topics stay as they are. An instance whose folder
    still has the file registers the unit again.

    Exit codes: 0 forgotten; 1 there is no such unit; 75 temporary error; 78 invalid configuration.
    """
    from cdc.fleet.topic import forget as forgotten
    from cdc.fleet.topic import read_register

    settings, _ = invocation.fleet()
    require(settings, postgres=False)
    register = read_register(settings, _SECONDS)
    if register is None or unit not in register.partitions:
        raise KafkaError(
            f"unit {unit!r} is not in the register of fleet {settings.fleet.name!r}",
            hint="cdc-publisher fleet status lists the units",
        )
    forgotten(settings, unit, _SECONDS)
    click.echo(f"unit {unit} is forgotten")
