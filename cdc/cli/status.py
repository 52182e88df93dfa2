"""The command `status`."""

import sys

import click
from rich.console import Console

from cdc.cli.main import Invocation
from cdc.cli.params import Url
from cdc.cli.screen import panel
from cdc.cli.screen.watching import watch
from cdc.status.lookout import Lookout, looked


@click.command()
@click.option(
    "--watch", "watching", is_flag=True, help="Show a live screen until Ctrl-C; without a terminal, print lines."
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Refresh --watch at this interval.",
)
@click.option("--url", type=Url(), help="Ask the publisher at this URL.  [default: the address in [http] listen]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch one object a line.")
@click.pass_obj
def status(invocation: Invocation, watching: bool, interval: float, url: str | None, as_json: bool) -> int:
    """Show the status of the publisher: state, lag, retained WAL, throughput, latency, last error.

    Asks the running publisher at [http] listen. If it does not answer, the first line says so, and the output shows the
    state of its slot in PostgreSQL and its last position in Kafka.

    \b
    Exit codes (--watch always exits with 0):
      0   working, or waiting for Kafka, the registry, PostgreSQL or another instance
      1   needs an operator: no process reads the slot, the slot is lost or stalled, or the publisher has failed
      75  not ready, or no answer: try again
      78  invalid configuration

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
