"""Numbers rows that are to be sent: those of before, strays, and after a restore what was not confirmed.

Both columns are kept by the trigger but for a transaction that sets `cdc.numbering`.
"""

from typing import Final, LiteralString

from psycopg import sql

from cdc.config.settings import Settings
from cdc.outbox.columns import SEQUENCE_COLUMN
from cdc.postgres import catalog, numbers
from cdc.postgres.connection import Conn, converting, query
from cdc.postgres.polling_table import NUMBERING, TX_COLUMN
from cdc.postgres.relay_facts import stray, unseen
from cdc.recovery.order import Order, OrderFacts, order_by

_ALIAS: Final = "o"
_DOING: Final = "numbering rows of the outbox"


def any_of_before(connection: Conn, settings: Settings) -> bool:
    """Return whether the table has rows from before a trigger gave them their transaction."""
    table = settings.outbox.qualified_name
    present = catalog.table_columns(connection, table)
    if present is None:
        return False
    has_column = TX_COLUMN in present
    condition = sql.SQL("where {} = '1'").format(sql.Identifier(TX_COLUMN)) if has_column else sql.SQL("")
    statement = sql.SQL("select exists (select from {} {})").format(sql.Identifier(*table), condition)
    with converting("reading the outbox table"):
        ((found,),) = connection.execute(statement).fetchall()
    return bool(found)


def order(connection: Conn, settings: Settings, number: str | None) -> Order:
    """Return the order of rows by their commits, as far as the table shows it; `number` is a column of numbers."""
    ((commits,),) = query(connection, "reading settings", "select current_setting('track_commit_timestamp') = 'on'")
    untimed = True
    if commits:
        statement = sql.SQL("select exists (select from {} o where pg_xact_commit_timestamp(o.xmin) is null)")
        with converting("reading the outbox table"):
            named = statement.format(sql.Identifier(*settings.outbox.qualified_name))
            ((untimed,),) = connection.execute(named).fetchall()
    # Rows may have been updated at any time, which moves their commit timestamps and leaves their numbers.
    return order_by(OrderFacts(commits=commits, untimed=untimed, sequence=number, updated=True), _ALIAS)


def number_of_before(connection: Conn, settings: Settings) -> str | None:
    """Return the column whose numbers rows of before got in the order of their inserts; None without one.

    It may be one of the writers', beside `cdc_seq`, which an earlier run that was interrupted may have added.
    """
    table = settings.outbox.qualified_name
    names = [column.name for column in numbers.columns(connection, table) if column.cache == 1]
    statement = sql.SQL("select exists (select from {} where {} = '1' and {} <> 0)").format(
        sql.Identifier(*table), sql.Identifier(TX_COLUMN), sql.Identifier(SEQUENCE_COLUMN)
    )
    with converting("reading the outbox table"):
        ((numbered,),) = connection.execute(statement).fetchall()
    return next((name for name in names if numbered or name != SEQUENCE_COLUMN), None)


def number_before(connection: Conn, settings: Settings, by: Order) -> int:
    """Give the rows of before numbers below those of all new rows, within a transaction; return how many.

    Writers continue meanwhile, and take the numbers from 1 on.
    """
    numbered = sql.SQL(
        "select o.tableoid as part, o.ctid as place,"
        " row_number() over (order by {order}) - count(*) over () - 1 as number from {table} o where o.{tx} = '1'"
    ).format(order=by.sql, table=_table(settings), tx=sql.Identifier(TX_COLUMN))
    return _update(connection, settings, numbered, sql.SQL("cdc_tx"))


def adopt(connection: Conn, settings: Settings, cleared: str) -> int:
    """Make strays rows to be sent, within a transaction, in the order of their transactions; return how many."""
    condition = stray(cleared, settings.outbox.published)
    by = order(connection, settings, None)
    return _renumber(connection, settings, condition, by.sql)


def renumber_unconfirmed(connection: Conn, settings: Settings, confirmed: sql.Composable) -> int:
    """Make the rows that a condition does not call confirmed rows to be sent, in their order; return how many."""
    condition = sql.SQL("not ({}) and not ({})").format(confirmed, stray(None, "mark"))
    return _renumber(connection, settings, condition, sql.SQL("o.{}").format(sql.Identifier(SEQUENCE_COLUMN)))


def settle(connection: Conn, settings: Settings, confirmed: sql.Composable, now: str) -> int:
    """Give confirmed rows whose transaction a snapshot of today does not see the transaction 1; return how many.

    After a restore their numbers of transactions are those of another server, and may be still to come here.
    """
    condition = sql.SQL("({}) and {}").format(confirmed, unseen(now, _ALIAS))
    places = sql.SQL("select o.tableoid as part, o.ctid as place, o.{} as number from {} o where {}").format(
        sql.Identifier(SEQUENCE_COLUMN), _table(settings), condition
    )
    return _update(connection, settings, places, sql.SQL("'1'"))


def _renumber(connection: Conn, settings: Settings, condition: sql.Composable, order: sql.Composable) -> int:
    # nextval is called for rows that are in order already.
    numbered = sql.SQL(
        "select part, place, nextval({sequence}) as number from"
        " (select o.tableoid as part, o.ctid as place from {table} o where {condition} order by {order}) ordered"
    ).format(
        sequence=sql.Literal(numbers.sequence_name(settings.outbox.qualified_name)),
        table=_table(settings),
        condition=condition,
        order=order,
    )
    return _update(connection, settings, numbered, sql.SQL("pg_current_xact_id()"))


def _update(connection: Conn, settings: Settings, places: sql.Composable, transaction: sql.Composable) -> int:
    setting: LiteralString = "set local cdc.numbering = 'on'"
    assert NUMBERING in setting
    # Materialized: numbers are given once for each row.
    statement = sql.SQL(
        "with numbered as materialized ({places}) update {table} o set {tx} = {transaction}, {seq} = numbered.number"
        " from numbered where o.tableoid = numbered.part and o.ctid = numbered.place"
    ).format(
        places=places,
        table=_table(settings),
        tx=sql.Identifier(TX_COLUMN),
        transaction=transaction,
        seq=sql.Identifier(SEQUENCE_COLUMN),
    )
    with converting(_DOING):
        connection.execute(setting)
        return connection.execute(statement).rowcount


def _table(settings: Settings) -> sql.Identifier:
    return sql.Identifier(*settings.outbox.qualified_name)
