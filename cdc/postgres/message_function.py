"""The function `outbox_emit`, by which applications write events as logical messages, and the rights that go with it.

`pg_logical_emit_message` itself may be called by every role: who may, can invent events. So writers get the right to
this function, which runs as its owner, and PUBLIC loses the right to the other.
"""

import json
from typing import Final, NamedTuple

from psycopg import sql

from cdc.config.settings import Settings
from cdc.errors import PostgresError
from cdc.postgres import defects
from cdc.postgres.connection import Conn, query

NAME: Final = "outbox_emit"
INIT: Final = "cdc-publisher outbox init --messages"
_ARGUMENTS: Final = "text, text, text, anycompatible, uuid, jsonb"
_PATH: Final = ["search_path=pg_catalog, pg_temp"]

_CREATE: Final = """\
CREATE OR REPLACE FUNCTION {function}(
    aggregatetype text, aggregateid text, type text, payload anycompatible,
    id uuid DEFAULT gen_random_uuid(), headers jsonb DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body};"""

_BODY: Final = """
BEGIN
    IF aggregatetype IS NULL OR type IS NULL OR id IS NULL THEN
        RAISE EXCEPTION 'an event needs aggregatetype, type and id' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_replication_slots s
        WHERE s.slot_name = {slot} AND s.database = current_database() AND s.wal_status IS DISTINCT FROM 'lost'
    ) THEN
        RAISE EXCEPTION 'replication slot % does not exist, or is lost: the event would be lost', {slot}
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'create it with: cdc-publisher slot create';
    END IF;
    PERFORM pg_logical_emit_message(true, {prefix}, convert_to(
        {id} || to_json(id::text) || {aggregatetype} || to_json(aggregatetype)
        || {aggregateid} || coalesce(to_json(aggregateid)::text, 'null') || {type} || to_json(type)
        || {payload} || coalesce(payload::text::json::text, 'null')
        || coalesce({headers} || headers::text, '') || '}}', 'UTF8'));
    RETURN id;
END
"""


class EmitFunction(NamedTuple):
    """What the server has of the function."""

    body: str
    definer: bool
    config: list[str] | None
    public: bool  # PUBLIC may call it

    @property
    def safe(self) -> bool:
        """Whether it runs as its owner, with a search path that no caller can change."""
        return self.definer and self.config == _PATH


def name(settings: Settings) -> str:
    """Return the quoted name of the function: it is in the schema of the table, or in public."""
    return sql.Identifier(settings.outbox.qualified_name[0] or "public", NAME).as_string()


def body(settings: Settings) -> str:
    """Return the source of the function for these settings."""
    columns = settings.outbox.columns
    members = {
        "id": f"{{{json.dumps(columns.id)}:",
        "aggregatetype": f",{json.dumps(columns.aggregate)}:",
        "aggregateid": f",{json.dumps(columns.key)}:",
        "type": f",{json.dumps(columns.type)}:",
        "payload": f",{json.dumps(columns.payload)}:",
        "headers": ',"headers":',
        "slot": settings.postgres.slot,
        "prefix": settings.outbox.messages or "",
    }
    return _BODY.format(**{role: defects.text(text) for role, text in members.items()})


def find(connection: Conn, settings: Settings) -> EmitFunction | None:
    """Return the function; None when there is none."""
    found = query(
        connection,
        "reading the function of messages",
        """
        select p.prosrc, p.prosecdef, p.proconfig,
               exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                       where a.grantee = 0 and a.privilege_type = 'EXECUTE')
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname = %s and p.proname = %s and oidvectortypes(p.proargtypes) = %s
        """,
        settings.outbox.qualified_name[0] or "public",
        NAME,
        _ARGUMENTS,
    )
    return EmitFunction(*found[0]) if found else None


def missing(connection: Conn, settings: Settings) -> list[str]:
    """Return the statements that create the function, or replace another one of its name; none where it is there."""
    there, wanted = find(connection, settings), body(settings)
    statements = []
    if there is None or there.body != wanted or not there.safe:
        statements.append(_CREATE.format(function=name(settings), body=f"$outbox${wanted}$outbox$"))
    if there is None or there.public:
        statements.append(f"REVOKE ALL ON FUNCTION {signature(settings)} FROM PUBLIC;")
    return statements


def grant(settings: Settings, role: str) -> str:
    """Return the statement that lets a role of writers call the function."""
    return f"GRANT EXECUTE ON FUNCTION {signature(settings)} TO {role};"


def signature(settings: Settings) -> str:
    """Return the function with the types of its arguments, as GRANT takes it."""
    return f"{name(settings)}({_ARGUMENTS})"


def revocations(connection: Conn) -> list[str]:
    """Return the statements that keep every role but superusers from writing messages itself; none where that is so.

    The role of the connection keeps the right, as the function runs by it, and `audit` and `recover` write messages.
    """
    found = query(
        connection,
        "reading the rights on pg_logical_emit_message",
        """
        select p.oid::regprocedure::text, u.rolname, u.rolsuper
        from pg_proc p join pg_roles u on u.rolname = current_user
        where p.proname = 'pg_logical_emit_message' and p.pronamespace = 'pg_catalog'::regnamespace
        and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                    where a.grantee = 0 and a.privilege_type = 'EXECUTE')
        order by 1
        """,
    )
    grants = [
        f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {defects.name(role)};"
        for function, role, is_superuser in found
        if not is_superuser
    ]
    return grants + [f"REVOKE EXECUTE ON FUNCTION pg_catalog.{function} FROM PUBLIC;" for function, _, _ in found]


def check_revoked(connection: Conn) -> None:
    """Raise PostgresError when PUBLIC may still write messages: only superusers can revoke it, others get a warning."""
    if left := revocations(connection):
        raise PostgresError(
            "the role may not revoke the right to pg_logical_emit_message", hint=f"run as a superuser: {' '.join(left)}"
        )
