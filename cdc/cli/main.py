"""`cdc-publisher`: global options, the list of commands, and the mapping of errors to exit codes."""

import gc
import importlib
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from cdc import __version__
from cdc.config import environment
from cdc.config.loading import Given, load, load_fleet, load_unit
from cdc.config.masking import scrubber, secrets
from cdc.config.settings import Settings
from cdc.errors import CdcError, ConfigError
from cdc.logs import setup as logs
from cdc.logs.format import hidden

COMMANDS = {
    "start": ("cdc.cli.start:start", "Run the publisher until SIGTERM or SIGINT."),
    "status": ("cdc.cli.status:status", "Show the publisher's state, lag, throughput and last error; --watch."),
    "check": ("cdc.cli.check:check", "Check PostgreSQL, Kafka and contracts; show fixes for problems."),
    "outbox": (
        "cdc.cli.outbox:outbox",
        "Create the outbox table and its publication, or delete published rows.",
    ),
    "slot": ("cdc.cli.slot:slot", "Create, list, drop or advance replication slots."),
    "recover": ("cdc.cli.recover:recover", "Publish what a lost slot did not bring, and create it again."),
    "schema": ("cdc.cli.schema:schema", "List, check, register, show or infer contracts."),
    "dlq": ("cdc.cli.dlq:dlq", "List, show or replay events that could not be published."),
    "audit": ("cdc.cli.audit:audit", "Compare the outbox table with the topics; repair missing events."),
    "fleet": ("cdc.cli.fleet:fleet", "Run many publishers in a few instances that share them out."),
    "takeover": ("cdc.cli.takeover:takeover", "Take over an outbox from Debezium's outbox event router."),
    "config": ("cdc.cli.config:config", "Show or validate the effective settings."),
    "local": ("cdc.cli.local:local", "Run PostgreSQL and Kafka on this machine, without containers."),
    "demo": ("cdc.cli.demo:demo", "Run a demo: publish the orders of a sample shop and verify the result."),
    "completion": (
        "cdc.cli.completion:completion",
        "Print a shell script that completes commands in bash, zsh or fish.",
    ),
}


@dataclass(frozen=True, slots=True)
class Invocation:
    """The global options; every command gets them as `click.Context.obj`."""

    config: Path | None
    log_format: str
    verbose: bool
    options: tuple[str, ...]
    unit: Path | None

    def settings(self) -> Settings:
        """Return the effective settings, and mask their secrets in all output from now on. Raises ConfigError."""
        if self.unit is None:
            settings = load(self.config, self.options)
            _hide(settings)
        else:
            fleet, defaults = load_fleet(self.config, self.options)
            _hide(fleet)
            settings = load_unit(self.unit, defaults, fleet.fleet.secrets)
            _hide(fleet, settings)
        return settings

    def fleet(self) -> tuple[Settings, Given]:
        """Return the settings of a fleet and the defaults of its units, and mask secrets. Raises ConfigError."""
        if self.unit is not None:
            raise click.UsageError("--unit names one unit, and this command takes the fleet: leave --unit out")
        settings, defaults = load_fleet(self.config, self.options)
        _hide(settings)
        return settings, defaults

    @property
    def source(self) -> Path | None:
        """The settings file of the publisher; None for the default."""
        return self.unit or self.config

    def program(self, unit: Path | None = None) -> str:
        """Return the program and its global options for commands that are shown, for another `unit` if given."""
        words = ["cdc-publisher"]
        words += ["--config", str(self.config)] if self.config else []
        for option in self.options:
            words += ["--set", option]
        unit = unit or self.unit
        words += ["--unit", str(unit)] if unit else []
        return hidden(shlex.join(words))


def _hide(*each: Settings) -> None:
    known = set[str]().union(*(secrets(settings.model_dump()) for settings in each))
    logs.hide(scrubber(known | environment.secrets(os.environ)))


class Commands(click.Group):
    """A group that imports a command's module only when the command is used.

    `cdc-publisher config show` does not load the Kafka client. `COMMANDS` has the short help texts, so that `--help`
    imports no command either.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        if not gc.isenabled():  # see `cdc.__main__`
            gc.freeze()
            gc.enable()
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete names of commands, without importing them, and global options."""
        names = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def _settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Complete the names of settings for --set."""
    from cdc.config.reference import names

    return [CompletionItem(f"{name}=") for name in names() if name.startswith(incomplete)]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", type=click.Path(path_type=Path), help="Read settings from this file.  [default: ./cdc-publisher.toml]"
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Format of log lines.",
)
@click.option("-v", "--verbose", is_flag=True, help="Write debug logs, and tracebacks of errors.")
@click.option(
    "--set",
    "options",
    multiple=True,
    metavar="SECTION.NAME=VALUE",
    shell_complete=_settings,
    help="Set one setting, overriding environment and file; repeatable.",
)
@click.option(
    "--unit",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run the command for the unit of a fleet that has this file; the other settings are those of the fleet.",
)
@click.version_option(__version__, prog_name="cdc-publisher")
@click.pass_context
def cli(
    ctx: click.Context,
    config: Path | None,
    log_format: str,
    verbose: bool,
    options: tuple[str, ...],
    unit: Path | None,
) -> None:
    """Publish a PostgreSQL transactional outbox to Kafka as Avro."""
    ctx.obj = Invocation(config, log_format, verbose, options, unit)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; see docs/operating.md."""
    try:
        code = cli.main(args=list(arguments), prog_name="cdc-publisher", standalone_mode=False)
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except click.Abort:
        click.echo("cdc-publisher: aborted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CdcError as error:
        return _failed(error, arguments)
    except BrokenPipeError:
        # The reader of the output, such as head or less, has exited: not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code if isinstance(code, int) else 0


def _failed(error: CdcError, arguments: Sequence[str]) -> int:
    if {"-v", "--verbose"} & set(arguments):
        logs.print_traceback(error)
    lines = [str(error)]
    if isinstance(error, ConfigError) and len(error.problems) > 1:
        lines = [*error.problems, error.hint]
    for line in filter(None, lines):
        logs.print_line(f"cdc-publisher: {line}")
    return error.exit_code


def main() -> NoReturn:
    """Run the console script `cdc-publisher`."""
    logs.print_uncaught_errors()
    sys.exit(run(sys.argv[1:]))
