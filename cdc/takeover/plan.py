"""The plan of a take-over as text: a settings file, with the verdicts and the grants as comments."""

import textwrap
from collections import Counter
from typing import Any, Final

from cdc.config.toml_text import section_text
from cdc.takeover.verdicts import VERDICTS, Line, Translation

_ORDER: Final = ("postgres", "outbox", "topics", "record", "kafka", "avro", "schema_registry", "delivery")
_WIDTH: Final = 110


def toml(translation: Translation) -> str:
    """Return the settings as a settings file."""
    sections = sorted(translation.settings, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))
    return "\n\n".join(section_text(name, translation.settings[name]) for name in sections) + "\n"


def document(translation: Translation) -> dict[str, Any]:
    """Return the plan as JSON has it."""
    return {
        "connector": translation.name,
        "settings": translation.settings,
        "toml": toml(translation),
        "options": [line._asdict() for line in translation.lines],
        "environment": [reference._asdict() for reference in translation.references],
        "grants": {"sql": sql_grants(translation), "kafka_acls": kafka_grants(translation)},
        "notes": translation.notes,
        "refused": len(translation.refused),
    }


def text(translation: Translation) -> str:
    """Return the plan as a settings file with comments."""
    parts = [f"Settings for the outbox of connector {translation.name or '(without a name)'}.", *_summary(translation)]
    blocks = [_comment(parts), toml(translation).rstrip()]
    if translation.references:
        lines = [f"{each.variable}  {each.reason}" for each in translation.references]
        blocks.append(_comment(["Give these in the environment, or their files with _FILE at the end:", *lines]))
    lines = ["PostgreSQL, once, as a superuser:", *sql_grants(translation)]
    lines += ["Kafka, for the principal of the publisher:", *kafka_grants(translation)]
    blocks.append(_comment(lines))
    blocks.append(_comment(["All records:", *translation.notes]))
    blocks.append(_comment(["Options of the connector:", *map(_option, _by_verdict(translation))], wrapped=False))
    return "\n\n".join(blocks) + "\n"


def _summary(translation: Translation) -> list[str]:
    counts = Counter[str](line.verdict for line in translation.lines)
    lines = [f"Options {verdict}: {counts[verdict]}; {text}." for verdict, text in VERDICTS.items() if counts[verdict]]
    if translation.refused:
        lines.append("Refused options must be resolved before a take-over.")
    return lines


def _by_verdict(translation: Translation) -> list[Line]:
    """Return the lines, those that need attention first."""
    order = list(VERDICTS)[::-1]
    return sorted(translation.lines, key=lambda line: order.index(line.verdict))


def _option(line: Line) -> str:
    value = f"{line.option} = {line.value}" if line.value != "(not set)" else f"{line.option} {line.value}"
    return f"{line.verdict:<16}{value} -> {line.text}"


def _comment(lines: list[str], *, wrapped: bool = True) -> str:
    written = []
    for line in lines:
        parts = textwrap.wrap(line, _WIDTH, subsequent_indent="  ", break_long_words=False) if wrapped else [line]
        written += [f"# {_printable(part)}".rstrip() for part in parts]
    return "\n".join(written)


def _printable(text: str) -> str:
    """Return the text with escapes for control characters, which TOML does not allow in comments."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def sql_grants(translation: Translation) -> list[str]:
    """Return the SQL that gives the connector's role what the publisher and `takeover` need."""
    pairs = dict(part.partition("=")[::2] for part in str(translation.settings["postgres"].get("dsn", "")).split())
    role, database = _name(pairs.get("user", "ROLE")), _name(pairs.get("dbname", "DATABASE"))
    table = str(translation.settings.get("outbox", {}).get("table", "public.outbox"))
    qualified = ".".join(map(_name, table.split(".", 1)))
    return [
        f"ALTER ROLE {role} REPLICATION;",
        f"GRANT CONNECT ON DATABASE {database} TO {role};",
        f"GRANT USAGE ON SCHEMA {qualified.split('.')[0]} TO {role};",
        f"GRANT SELECT ON {qualified} TO {role};  -- takeover compare and run read rows",
    ]


def _name(name: str) -> str:
    plain = name.isidentifier() and name == name.lower() and name.isascii()
    return name if plain or name in ("ROLE", "DATABASE") else '"' + name.replace('"', '""') + '"'


def kafka_grants(translation: Translation) -> list[str]:
    """Return the calls of kafka-acls that give the publisher's principal what it needs."""
    topics = translation.settings.get("topics", {})
    delivery = translation.settings.get("delivery", {})
    prefix = str(topics.get("name", "outbox.event.{aggregatetype}")).partition("{")[0]
    template = f"--topic '{prefix}' --resource-pattern-type prefixed" if prefix else "--topic '*'"
    rights = "--operation Write --operation Read --operation DescribeConfigs"
    create = " --operation Create" if topics.get("create") else ""
    grants = [f"{template} {rights}{create}", f"--topic cdc.positions {rights} --operation Create"]
    if delivery.get("on_poison") == "dead-letter":
        grants.append(f"--topic cdc.dead-letter {rights} --operation Create")
    if delivery.get("guarantee") == "exactly-once":
        grants.append("--transactional-id cdc-publisher- --resource-pattern-type prefixed --operation Write")
    return [f"kafka-acls.sh --add --allow-principal User:PRINCIPAL {grant}" for grant in grants]
