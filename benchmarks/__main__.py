"""`python -m benchmarks`: measure the publisher, and write tables, JSON and charts. See docs/speed.md."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import psycopg
from confluent_kafka import KafkaException
from rich.console import Console

from benchmarks import charts, contestants, document, growth, latency, memory, peers, polling, results, suite, tables
from benchmarks.contestants import NAMES, PUBLISHERS
from benchmarks.peers import DEBEZIUM, MQ_BRIDGE, OURS, Peer
from benchmarks.records import Unverified
from benchmarks.results import Sections
from benchmarks.suite import Bench
from benchmarks.workload import SHAPES
from cdc.errors import CdcError

OUT = Path(".cache/bench")
FAILURES = (Unverified, RuntimeError, CdcError, KafkaException, psycopg.Error)


def measuring(command: Callable[..., Sections]) -> Callable[..., None]:
    """Add the options of measuring commands; the command gets a Bench, and its sections are saved and printed."""

    def invoke(out: Path, postgres: str | None, kafka: str | None, **options: Any) -> None:
        console = Console()
        try:
            with suite.bench(console, postgres, kafka) as ready:
                _report(console, out, command(ready, **options))
        except FAILURES as error:
            console.print(f"benchmarks: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            sys.exit(1)

    for option in (
        click.option(
            "--out", type=click.Path(path_type=Path), default=OUT, show_default=True, help="Folder of results."
        ),
        click.option("--postgres", metavar="DSN", help="Given server; else CDC_TEST_POSTGRES_DSN, else a local stack."),
        click.option("--kafka", metavar="BOOTSTRAP", help="Given server; else CDC_TEST_KAFKA, else a local stack."),
    ):
        invoke = option(invoke)
    invoke.__doc__ = command.__doc__
    invoke.__name__ = command.__name__
    return invoke


def _report(console: Console, out: Path, measured: Sections) -> None:
    before = results.read(out / results.FILE)
    everything = results.save(out, measured)
    (out / "results.md").write_text(tables.markdown(everything))
    console.print(tables.markdown(measured), markup=False, highlight=False, soft_wrap=True)
    changed = results.changes(before, measured)
    if changed:
        console.print(f"Compared with the previous run:\n\n{tables.changes(changed)}", markup=False, soft_wrap=True)
    drawn = [str(path) for path in charts.draw(everything, out)] if charts.available() else [charts.WITHOUT]
    console.print(f"\n{out / results.FILE}, {out / 'results.md'}; {', '.join(drawn)}", markup=False, soft_wrap=True)


def _names(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    names = [name for name in value.split(",") if name]
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(NAMES)}")
    return names


def contestant_option(command: Callable[..., None]) -> Callable[..., None]:
    default = contestants.default_accelerator()
    return click.option(
        "--contestant", type=click.Choice(PUBLISHERS), default=default, show_default=True, help="The publisher's way."
    )(command)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Measure the publisher against what PostgreSQL can send, and verify what arrives."""


@cli.command()
@click.option("--events", type=int, help="Events of the backlog.  [default: by shape]")
@click.option("--rounds", type=int, default=5, show_default=True, help="How often each contestant runs.")
@click.option("--shape", "shapes", multiple=True, type=click.Choice(list(SHAPES)), default=["200B"], show_default=True)
@click.option("--contestants", "names", default=",".join(NAMES), show_default=True, callback=_names)
@measuring
def throughput(ready: Bench, events: int | None, rounds: int, shapes: list[str], names: list[str]) -> Sections:
    """Measure events/s, CPU and memory on a backlog, alternating with the ceiling."""
    chosen = {shape: replace(SHAPES[shape], events=events or SHAPES[shape].events) for shape in shapes}
    return ready.throughput(chosen, names, rounds)


@cli.command("latency")
@click.option("--rate", "rates", multiple=True, type=int, default=latency.RATES, show_default=True, help="Events/s.")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="For each rate; the first 2 are dropped.")
@contestant_option
@measuring
def latency_(ready: Bench, rates: list[int], seconds: float, contestant: str) -> Sections:
    """Measure latency from commit to append, at steady rates."""
    return ready.latency(rates, seconds, contestant)


@cli.command()
@click.option("--times", type=int, default=5, show_default=True)
@contestant_option
@measuring
def startup(ready: Bench, times: int, contestant: str) -> Sections:
    """Measure the time from the start of the process to the first event."""
    return ready.startup(times, contestant)


@cli.command("memory")
@click.option("--events", type=int, default=10_000_000, show_default=True, help="Of the backlog; 0: none.")
@click.option("--transaction", type=int, default=1_000_000, show_default=True, help="Of one transaction; 0: none.")
@contestant_option
@measuring
def memory_(ready: Bench, events: int, transaction: int, contestant: str) -> Sections:
    """Measure memory over a long backlog and one huge transaction; 10 million events need 15 GB of disk."""
    return ready.memory(memory.workloads(events, transaction), contestant)


@cli.command("backfill")
@click.option("--rows", type=int, default=1_000_000, show_default=True, help="Of the table.")
@measuring
def backfill_(ready: Bench, rows: int) -> Sections:
    """Measure `slot create --backfill` of a long table while a writer continues."""
    return ready.backfill(rows)


def _parts(_: click.Context, __: click.Parameter, value: str) -> list[int]:
    try:
        found = [int(number) for number in value.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or sorted(set(found)) != found:
        raise click.BadParameter(f"{value!r} is no list of growing numbers, such as 1,2,4")
    return found


@cli.command("split")
@click.option("--events", type=int, default=300_000, show_default=True, help="Events of each backlog.")
@click.option("--parts", default="1,2,4", show_default=True, callback=_parts, help="Numbers of parts.")
@click.option("--rounds", type=int, default=3, show_default=True, help="How often each publisher runs.")
@click.option(
    "--contestant",
    "names",
    multiple=True,
    type=click.Choice(PUBLISHERS),
    default=[contestants.NATIVE, contestants.PYTHON],
    show_default=True,
    help="The publishers' way.",
)
@measuring
def split_(ready: Bench, events: int, parts: list[int], rounds: int, names: list[str]) -> Sections:
    """Measure CPU of walsenders and publishers, and events/s, with an outbox in parts: 10 minutes."""
    return ready.split(replace(SHAPES["200B"], events=events), parts, names, rounds)


@cli.command("fleet")
@click.option("--units", type=click.IntRange(2), default=10, show_default=True, help="Of the idle fleet.")
@click.option("--events", type=int, default=300_000, show_default=True, help="Of the backlog of one unit.")
@click.option("--rounds", type=int, default=5, show_default=True, help="How often the backlog is read each way.")
@click.option("--takeovers", type=int, default=3, show_default=True, help="How often all units are taken over.")
@contestant_option
@measuring
def fleet_(ready: Bench, units: int, events: int, rounds: int, takeovers: int, contestant: str) -> Sections:
    """Measure a fleet beside single publishers: memory and CPU of idle units, events/s of one; and takeovers."""
    return ready.fleet(replace(SHAPES["200B"], events=events), units, rounds, takeovers, contestant)


@cli.command("polling")
@click.option("--events", type=int, default=200_000, show_default=True, help="Events of each backlog.")
@click.option("--rounds", type=int, default=3, show_default=True, help="How often each contestant runs.")
@click.option("--rate", type=int, default=1_000, show_default=True, help="Events/s of the steady rate.")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="Of the steady rate.")
@click.option(
    "--open-seconds", type=float, default=20.0, show_default=True, help="Of the steady rate beside an open transaction."
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(list({**polling.known(), **polling.steady()})),
    help="Names of lines; the results keep the others.  [default: all]",
)
@measuring
def polling_(
    ready: Bench, events: int, rounds: int, rate: int, seconds: float, open_seconds: float, only: list[str]
) -> Sections:
    """Measure polling beside the slot, and messages beside rows: rate, latency, PostgreSQL's CPU and dead rows."""
    return ready.polling(replace(SHAPES["200B"], events=events), rounds, rate, seconds, open_seconds, only)


def _peers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[Peer]:
    found = []
    for value in values or (*OURS, MQ_BRIDGE, DEBEZIUM):
        try:
            found.append(peers.known(value) or peers.given(value))
        except ValueError as error:
            raise click.BadParameter(f"{error}; known are {', '.join((*OURS, MQ_BRIDGE, DEBEZIUM))}") from None
    return found


@cli.command("peers")
@click.option("--events", type=int, default=500_000, show_default=True, help="Events of the backlog.")
@click.option("--rounds", type=int, default=5, show_default=True, help="How often each program runs.")
@click.option(
    "--peer",
    "chosen",
    multiple=True,
    callback=_peers,
    metavar="NAME|NAME=COMMAND",
    help="A known program, or the command line of another, with {dsn}, {url}, {host}, {port}, {user}, {password},"
    " {dbname}, {slot}, {publication}, {kafka}, {topic} and {folder}.  [default: all known]",
)
@measuring
def peers_(ready: Bench, events: int, rounds: int, chosen: list[Peer]) -> Sections:
    """Measure other programs beside the publisher on the same backlog: an hour with all of them."""
    return ready.peers(chosen, replace(SHAPES["200B"], events=events), rounds)


@cli.command("growth")
@click.option("--events", type=int, default=100_000, show_default=True, help="Of each small backlog.")
@click.option("--largest", type=int, default=1_000_000, show_default=True, help="Of the longest backlog.")
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--only", multiple=True, help="Names of dimensions.  [default: all]")
@contestant_option
@measuring
def growth_(ready: Bench, events: int, largest: int, rounds: int, only: list[str], contestant: str) -> Sections:
    """Measure the cost per event for growing payloads, columns, types, keys, partitions, transactions and backlogs."""
    wanted = [one for one in growth.dimensions(events, largest) if not only or one.name in only]
    rates = latency.RATES if not only or growth.TRANSACTIONS in only else ()
    return ready.growth(wanted, rounds, contestant, rates)


@cli.command("all")
@click.option("--events", type=int, default=1_000_000, show_default=True, help="Of the main backlog.")
@click.option("--rounds", type=int, default=5, show_default=True, help="Of the main backlog.")
@measuring
def all_(ready: Bench, events: int, rounds: int) -> Sections:
    """Run everything but the backlog of 10 million, backfill, split, fleet and polling: 15 to 20 minutes on 2 cores."""
    return ready.everything(events, rounds)


@cli.command()
@click.argument("before", type=click.Path(path_type=Path, exists=True), default=OUT / results.PREVIOUS)
@click.argument("now", type=click.Path(path_type=Path, exists=True), default=OUT / results.FILE)
def compare(before: Path, now: Path) -> None:
    """Print the change of each median between two results."""
    click.echo(tables.changes(results.changes(results.read(before), results.read(now))))


@cli.command("document")
@click.option("--out", type=click.Path(path_type=Path, exists=True), default=OUT, show_default=True, help="Results.")
@click.option("--page", type=click.Path(path_type=Path, exists=True), default="docs/speed.md", show_default=True)
@click.option("--only", multiple=True, help="Names of sections, without charts.  [default: all, and charts]")
def document_(out: Path, page: Path, only: list[str]) -> None:
    """Put the results and charts into a page."""
    found = results.read(out / results.FILE)
    missing = [name for name in only if name not in found]
    if missing:
        raise click.BadParameter(f"{out / results.FILE} has no section {missing[0]!r}")
    chosen = {name: part for name, part in found.items() if not only or name in only}
    for path in document.write(page, chosen, None if only else out):
        click.echo(path)


if __name__ == "__main__":
    cli(prog_name="python -m benchmarks")
