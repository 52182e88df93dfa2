"""`status`: where the publisher stands."""

import sys

import click
from rich.console import Console

from cdc.cli.main import Invocation
from cdc.cli.params import Url
from cdc.cli.screen import panel
from cdc.cli.screen.watching import watch
from cdc.status.lookout import Lookout, looked


@click.command()
@click.option("--watch", "watching", is_flag=True, help="A live screen, until Ctrl-C; without a terminal, lines.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often --watch looks.",
)
@click.option("--url", type=Url(), help="Ask the endpoint here.  [default: where [http] listen says]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one object a line.")
@click.pass_obj
def status(invocation: Invocation, watching: bool, interval: float, url: str | None, as_json: bool) -> int:
    """Tell where the publisher stands: state, lag, retained WAL, throughput, latency, last error.

    Asks the running publisher at [http] listen. Where it does not answer, what the database knows of its slot, and
    Kafka of its position, is shown instead, and that it is so is said first.

    \b
    Exit codes of one look (--watch always ends with 0):
      0   it works, or waits for what passes by itself: Kafka, the registry, PostgreSQL, another instance
      1   a person is needed: nobody reads the slot, it is lost or stalled, or the publisher has failed
      75  not yet or not any more ready, or nothing answers: ask again
      78  configuration

    \b
    Examples:
      cdc-publisher status
      cdc-publisher status --watch
      cdc-publisher status --json | jq .lag.bytes
      cdc-publisher status --url http://10.0.0.7:8080
    """
    settings = invocation.settings()
    # An old terminal's encoding may lack the characters of charts and frames.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    if watching:
        return watch(Lookout(settings, url), interval, as_json=as_json)
    document = looked(settings, url)
    if as_json:
        click.echo(document.json_line())
    else:
        console = Console(width=None if sys.stdout.isatty() else panel.PIPE_WIDTH, highlight=False)
        console.print(panel.show(document, console))
    return document.exit_code
