"""The definition of publication and table, on which the stream depends, and what a change of it means.

PostgreSQL reports nothing when the outbox leaves its publication, is swapped for another table, or when the
publication is re-created: rows are skipped, and the stream continues. So the identities are kept and compared.
"""

from collections.abc import Mapping
from typing import Final

from cdc.lsn import LSN

TABLE: Final = "table"
TABLE_OID: Final = "table oid"
PUBLICATION: Final = "publication"
PUBLICATION_OID: Final = "publication oid"
PUBLISHED_BY: Final = "published by"
INSERTS: Final = "inserts"
ROW_FILTER: Final = "row filter"
COLUMN_LIST: Final = "column list"
PARTITION_ROOT: Final = "via partition root"
CHILDREN: Final = "children"
CHILD_OIDS: Final = "child oids"
NONE: Final = "none"

GO_ON: Final = (
    "publish again what is missing, if anything: cdc-publisher audit --repair; then, to continue from where the slot"
    " stands, run once: cdc-publisher start --accept-changes"
)
PUT_RIGHT: Final = (
    "put it right, compare the table with the topics and publish again what is missing (cdc-publisher audit --repair),"
    " then start with --accept-changes"
)

Definition = Mapping[str, str]


def differences(now: Definition, before: Definition) -> list[str]:
    """Return one sentence for each changed part; parts that only one side knows are ignored."""
    if not (now and before):
        return []  # of a slot that was only created nothing else is known
    table, publication = (f"{kind} {now[kind]}" for kind in (TABLE, PUBLICATION))
    changed = _changed(now, before, TABLE, PUBLICATION)
    if TABLE in changed and table_oid(now) is not None and now[TABLE_OID] == before.get(TABLE_OID):
        changed.remove(TABLE)  # it was renamed: its rows are the same
    found = [f"{kind} is {now[kind]}, and was {before[kind]}" for kind in changed]
    if found:
        return found
    for oid in _changed(now, before, TABLE_OID, PUBLICATION_OID):
        subject, again = (
            (table, "replaced by another of its name")
            if oid == TABLE_OID
            else (publication, "dropped and created again")
        )
        if now[oid] == NONE:
            found.append(f"{subject} does not exist any more (it had oid {before[oid]})")
        else:
            found.append(f"{subject} was {again} (oid {now[oid]}, was {before[oid]})")
    if found:
        return found  # all else would only follow from it
    if _changed(now, before, PUBLISHED_BY) and now[PUBLISHED_BY] == NONE:
        return [f"{publication} has no {table} any more"]
    if _changed(now, before, INSERTS):
        found.append(f"{publication} publishes {'' if now[INSERTS] == 'yes' else 'no '}inserts now")
    for part in _changed(now, before, ROW_FILTER, COLUMN_LIST):
        if before[part] == NONE:
            found.append(f"{publication} got a {part} for {table}: {now[part]}")
        elif now[part] == NONE:
            found.append(f"{publication} lost its {part} for {table}, which was {before[part]}")
        else:
            found.append(f"{publication} has another {part} for {table}: {now[part]}, was {before[part]}")
    if _changed(now, before, PARTITION_ROOT):
        found.append(f"{publication} publishes {table} {PARTITION_ROOT}: {now[PARTITION_ROOT]} now")
    if _changed(now, before, CHILDREN, CHILD_OIDS):
        children = f"{now[CHILDREN]}, and {before[CHILDREN]} before"
        found.append(f"the tables that inherit from {table}, or are unlogged partitions of it, are {children}")
    if not found and _changed(now, before, PUBLISHED_BY):
        found.append(f"{publication} publishes {table} by {now[PUBLISHED_BY]}, and did by {before[PUBLISHED_BY]}")
    return found


def _changed(now: Definition, before: Definition, *parts: str) -> list[str]:
    return [part for part in parts if part in now and part in before and now[part] != before[part]]


def table_oid(definition: Definition) -> int | None:
    """The table's oid, when there is such a table."""
    oid = definition.get(TABLE_OID, NONE)
    return int(oid) if oid.isdecimal() else None


def child_oids(definition: Definition) -> frozenset[int]:
    """The oids of the tables that inherit from the table: their rows are rows of it."""
    return frozenset(int(oid) for oid in definition.get(CHILD_OIDS, NONE).split() if oid.isdecimal())


def counted(definition: Definition) -> frozenset[int]:
    """The oids of the tables whose rows are counted in positions."""
    oid = table_oid(definition)
    return child_oids(definition) | ({oid} if oid else set())


def suspect(since: LSN | None, until: LSN) -> str:
    """Which rows a change may have kept from the stream, when it was last seen right at `since`."""
    start = "up to LSN" if since is None else f"between LSN {since} and"
    return f"rows committed {start} {until}, and later until it is put right, may not have been published"
