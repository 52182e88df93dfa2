"""`config`: the effective settings, secrets masked."""

import json

import click

from cdc.avro import contracts
from cdc.cli.examples import examples
from cdc.cli.main import Invocation
from cdc.config.masking import masked
from cdc.config.reference import reference as reference_text
from cdc.config.settings import Settings, require
from cdc.errors import ConfigError
from cdc.kafka import producer


@click.group()
def config() -> None:
    """Show or validate the effective settings, or tell of all there are."""


@config.command(epilog=examples("cdc-publisher config show", "cdc-publisher --config shop.toml config show --json"))
@click.option("--json", "as_json", is_flag=True, help="JSON instead of TOML.")
@click.pass_obj
def show(invocation: Invocation, as_json: bool) -> None:
    """Show every setting with its effective value, secrets masked, as a settings file."""
    values = _masked(invocation.settings())
    if as_json:
        click.echo(json.dumps(values, indent=2))
    else:
        click.echo("\n\n".join(_toml(section, table) for section, table in values.items()))


def _masked(settings: Settings) -> dict[str, dict[str, object]]:
    sections = settings.model_dump(mode="json")
    return {
        section: {name: masked(name, value) for name, value in table.items()} for section, table in sections.items()
    }


def _toml(section: str, table: dict[str, object]) -> str:
    lines = [f"[{section}]"]
    for name, value in table.items():
        key = json.dumps(name) if "." in name else name
        # A setting without a value has no line in TOML, but should be seen.
        lines.append(f"# {key} is not set" if value is None else f"{key} = {_value(value)}")
    return "\n".join(lines)


def _value(value: object) -> str:
    if isinstance(value, dict):
        pairs = ", ".join(f"{json.dumps(name)} = {_value(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    # JSON's strings, numbers and booleans are TOML's too.
    # JSON leaves DEL as it is, which TOML does not allow.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


@config.command(epilog=examples("cdc-publisher config validate", "cdc-publisher --config shop.toml config validate"))
@click.pass_obj
def validate(invocation: Invocation) -> None:
    """Check settings and contracts without connecting to anything; exit code 78 with every problem found."""
    settings = invocation.settings()
    avro = settings.avro
    problems: list[str] = []
    for look in (
        lambda: require(settings),
        lambda: producer.validate(settings),
        lambda: avro.source == "registry" or contracts.load(avro.schemas, avro.types),
    ):
        try:
            look()
        except ConfigError as error:
            problems += [*error.problems, *([error.hint] if error.hint else [])]
    if problems:
        raise ConfigError(*problems)
    click.echo("the settings and contracts are valid")


@config.command(epilog=examples("cdc-publisher config reference | less"))
def reference() -> None:
    """Tell every setting: name, environment variable, values, default and meaning, as Markdown.

    It is what docs/configuration.md says of this version.
    """
    click.echo(reference_text(), nl=False)
