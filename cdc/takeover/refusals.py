"""What a take-over refuses before it changes anything."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cdc.app.contracts import Schemas
from cdc.config.settings import Settings
from cdc.kafka import producer
from cdc.postgres.connection import Conn, query
from cdc.records.fastpath import select as accelerator
from cdc.takeover.compare import compare, unfit
from cdc.takeover.connector import Configuration
from cdc.takeover.handover import TakeoverError
from cdc.takeover.translate import translate

_COMPARED: Final = 1000
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the user has decided."""

    wait_seconds: float = 120.0
    keys_move: bool = False
    expect_empty: bool = False
    allow_duplicates: bool = False
    stay: bool = False


def what_cannot_publish(settings: Settings) -> None:
    """Raise CdcError for contracts or an accelerator that the publisher could not start with."""
    accelerator.choose(settings.delivery.accelerator)
    producer.validate(settings)
    with contextlib.closing(Schemas(settings)) as schemas:
        schemas.read()


def configuration(given: Configuration | None, settings: Settings, *, keys_move: bool) -> None:
    """Raise TakeoverError for a connector that cannot be translated, or whose settings are not these."""
    if given is None:
        return
    plan = translate(given)
    refused = [f"{line.option}: {line.text}" for line in plan.refused]
    if refused:
        raise TakeoverError(
            f"the connector cannot be taken over: {'; '.join(refused)}", hint="run: cdc-publisher takeover plan"
        )
    moves = [line for line in plan.lines if line.option == "key.converter" and line.verdict == "changes records"]
    if moves and not keys_move:
        raise TakeoverError(moves[0].text, hint="with --keys-move consumers see keys in two partitions")
    for section, name, value in (
        ("postgres", "slot", settings.postgres.slot),
        ("postgres", "publication", settings.postgres.publication),
        ("outbox", "table", settings.outbox.table),
        ("topics", "name", settings.topics.name),
    ):
        wanted = plan.settings.get(section, {}).get(name)
        if wanted is not None and wanted != value:
            raise TakeoverError(
                f"[{section}] {name} is {value!r}, and the connector has {wanted!r}",
                hint="use the settings that takeover plan prints",
            )


def ids(connection: Conn, settings: Settings) -> None:
    """Raise TakeoverError when the ids of events may repeat: an event is recognised by its id."""
    column, (schema, table) = settings.outbox.columns.id, settings.outbox.qualified_name
    unique = query(
        connection,
        "reading the indexes",
        """
        select from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
        join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
        where n.nspname = %s and c.relname = %s and a.attname = %s and i.indisunique and i.indisvalid
          and i.indnkeyatts = 1 and i.indpred is null
        """,
        schema,
        table,
        column,
    )
    if not unique:
        raise TakeoverError(
            f"column {column!r} of {settings.outbox.table} has no unique index: an event is recognised by its id",
            hint=f"create one: CREATE UNIQUE INDEX CONCURRENTLY ON {settings.outbox.table} ({column})",
        )


def records(settings: Settings, choices: Choices) -> None:
    """Compare the last records of Debezium with those that the publisher would make.

    Raises TakeoverError when there are none, when events cannot be published, or when keys would move.
    """
    found = compare(settings, _COMPARED)
    is_empty = not (found.events or found.without_row or found.failures)
    if is_empty and not (choices.expect_empty or choices.allow_duplicates):
        raise TakeoverError(
            f"topics of {settings.topics.name!r} hold no record of Debezium with a header id",
            hint="check [kafka] and [topics] name; --expect-empty for an outbox that never sent an event;"
            " --allow-duplicates for records without the header",
        )
    if failures := {**found.failures, **unfit(settings)}:
        raise TakeoverError(
            f"{len(failures)} of the last events cannot be published: {_listed(failures)}",
            hint="run: cdc-publisher takeover compare; and for all rows: cdc-publisher schema check --table",
        )
    if found.moved_keys and not choices.keys_move:
        raise TakeoverError(
            f"{found.moved_keys} of the last {len(found.keys)} keys would move to another partition",
            hint="run: cdc-publisher takeover compare; with --keys-move consumers see keys in two partitions",
        )


def _listed(failures: Mapping[str, str]) -> str:
    return "; ".join(f"{event_id}: {reason}" for event_id, reason in list(failures.items())[:_SHOWN])
