"""`config`: show and validate settings, and print their reference."""

import json

import click

from cdc.app import contracts
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.config.masking import masked
from cdc.config.reference import reference as reference_text
from cdc.config.settings import Settings, require
from cdc.config.toml_text import section_text
from cdc.errors import ConfigError
from cdc.kafka import producer
from cdc.postgres import connection


@click.group()
def config() -> None:
    """Show or validate the effective settings, or print the reference of all settings."""


@config.command(epilog=examples("cdc-publisher config show", "cdc-publisher --config shop.toml config show --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
@click.pass_obj
def show(invocation: Invocation, as_json: bool) -> None:
    """Show every setting with its effective value as a settings file, with secrets masked."""
    values = _masked(invocation.settings())
    if as_json:
        click.echo(json.dumps(values, indent=2))
    else:
        click.echo("\n\n".join(section_text(section, table) for section, table in values.items()))


def _masked(settings: Settings) -> dict[str, dict[str, object]]:
    sections = settings.model_dump(mode="json")
    return {
        section: {name: masked(name, value) for name, value in table.items()} for section, table in sections.items()
    }


@config.command(epilog=examples("cdc-publisher config validate", "cdc-publisher --config shop.toml config validate"))
@click.pass_obj
def validate(invocation: Invocation) -> None:
    """Validate settings and contracts without connecting to any server.

    Exit codes: 0 valid; 78 invalid, with one line for each problem.
    """
    settings = invocation.settings()
    problems: list[str] = []
    for validation in (
        lambda: require(settings),
        lambda: connection.validate(settings.postgres.dsn),
        lambda: producer.validate(settings),
        lambda: settings.avro.source == "registry" or contracts.load(settings, None),
    ):
        try:
            validation()
        except ConfigError as error:
            problems += [*error.problems, *([error.hint] if error.hint else [])]
    if problems:
        raise ConfigError(*problems)
    click.echo("the settings and contracts are valid")


@config.command(epilog=examples("cdc-publisher config reference | less"))
def reference() -> None:
    """Print the reference of all settings as Markdown: name, environment variable, values, default and description.

    docs/configuration.md has the same text.
    """
    click.echo(reference_text(), nl=False)
