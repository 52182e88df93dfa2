"""Small worlds, each around one fault, for the sweep of crash points: a few transactions and a script."""

from dataclasses import replace
from typing import Final

from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE
from cdc.records.partitioner import partition
from cdc.replication import values
from tests.simulation.oracle import DEAD_LETTERS, POSITIONS
from tests.simulation.plan import SWITCH, Act, Plan, Transaction, Write
from tests.simulation.rows import POISON, TOMBSTONE
from tests.simulation.sink import NO_OFFSET
from tests.simulation.table import DOMAINS, ENUM

ORDER: Final = "outbox.event.order"


def _tx(at: float, *writes: Write, hold: float = 0.0, commits: bool = True) -> Transaction:
    return Transaction(at, writes or (Write(),), hold, commits)


def _row(key: str = "a", count: int = 1, aggregate: str = "order", payload: str = "") -> Write:
    return Write("insert", count, key, aggregate, payload)


_TWO: Final = (_tx(0.02, _row(), _row("b")), _tx(0.05, _row()))
_THREE: Final = (*_TWO, _tx(0.6, _row("b", 2)))
_POISON: Final = (_tx(0.02, _row()), _tx(0.05, _row("b"), _row(payload=POISON), _row()), _tx(0.1, _row()))


def _plan(name: str, traffic: tuple[Transaction, ...], *acts: Act, **changes: object) -> Plan:
    return Plan(name, traffic, acts, **changes)  # type: ignore[arg-type]


_FAULTS: Final = (
    _plan("plain", _TWO),
    _plan(
        "many rows in one transaction (A6)", (_tx(0.02, *(_row(key) for key in "abcab")), _tx(0.03, _row())), burst=2
    ),
    _plan("COPY: rows share an LSN (A5)", (_tx(0.02, _row("a", 6)), _tx(0.03, _row("b", 3)))),
    _plan(
        "interleaved transactions (A7)",
        (_tx(0.01, _row(), _row("b"), hold=0.2), _tx(0.05, _row(), hold=0.05), _tx(0.12, _row("b"))),
    ),
    _plan(
        "what is rolled back never was (A7)",
        (_tx(0.01, _row(), commits=False), _tx(0.02, _row(), Write("undone"), _row("b")), _tx(0.03, _row())),
    ),
    _plan("keepalives inside transactions (A10)", (_tx(0.02, _row(), _row(), _row("b")), _tx(0.03)), keepalives=0.9),
    _plan(
        "one partition is slow (A2)",
        (_tx(0.02, *map(_row, "abcdef")), _tx(0.3, _row("a"), _row("b")), _tx(0.31, _row("c")), _tx(0.32, _row("b"))),
        Act(0.29, "slow_partition", (ORDER, partition(b"a", 3), 2.0)),
        partitions=3,
    ),
    _plan(
        "keepalives inside a transaction that Kafka has (A10)",
        (_tx(0.02, _row("b", 3), _row("a", 3)),),
        Act(0.01, "no_topic", (ORDER, 1.0)),
        keepalives=0.9,
        burst=1,
        room=1,
    ),
    _plan("other tables only (A8)", (_tx(0.02, Write("other")), _tx(0.1, _row()), _tx(0.2, Write("other", 3)))),
    _plan(
        "rows of other tables among ours (A5)",
        (_tx(0.02, _row(), Write("other"), _row(), Write("other"), _row()),),
    ),
    _plan(
        "messages, origins, TRUNCATE, UPDATE, DELETE (A23, B8, B9)",
        (
            _tx(0.02, Write("origin"), _row(), Write("update"), Write("truncate")),
            _tx(0.05, Write("message"), Write("delete")),
        ),
    ),
    _plan(
        "messages beside rows",
        (
            _tx(0.02, _row(), Write("emitted"), _row("b"), Write("message"), Write("emitted", 3, "b")),
            _tx(0.05, Write("emitted", 2), _row("b", 2)),
            _tx(0.06, Write("emitted")),
        ),
        Act(0.055, "crash", (True,)),
        save_rate=0.0,
    ),
    _plan("kill -9 and again (D5)", _THREE, Act(0.055, "crash", (True,)), Act(0.4, "crash", (False,))),
    _plan("power off (D5)", _THREE, Act(0.055, "power_off"), timeout=1.0),
    _plan("SIGTERM under load (D4)", _THREE, Act(0.06, "terminate")),
    _plan("SIGHUP under load", _THREE, Act(0.06, "reload")),
    _plan("PostgreSQL crashes (A17)", _THREE, Act(0.3, "pg_crash", (0.1,)), save_rate=0.0),
    _plan("PostgreSQL crashes unflushed (B26)", _THREE, Act(0.06, "pg_crash", (0.1,)), flush_delay=0.05),
    _plan(
        "fast shutdown while Kafka is down (B17)", _THREE, Act(0.03, "outage", (30.0,)), Act(0.3, "pg_restart", (0.2,))
    ),
    _plan("connection reset (A15)", _THREE, Act(0.055, "cut", (True,))),
    _plan("half-open connection (A15)", _THREE, Act(0.055, "cut", (False,)), timeout=1.0),
    _plan("black hole (A14)", _THREE, Act(0.055, "black_hole"), timeout=1.0),
    _plan("frozen walsender (A14)", _THREE, Act(0.055, "freeze_walsender", (7.0,)), timeout=1.0),
    _plan("Kafka is down with a full queue (A12)", _THREE, Act(0.03, "outage", (4.0,)), timeout=1.0, room=1),
    _plan("Kafka is down for longer than wal_sender_timeout (A12)", _THREE, Act(0.03, "outage", (4.0,)), timeout=1.0),
    _plan("new leaders (C2)", _THREE, Act(0.06, "change_leaders", (0.2,)), latency=0.05),
    _plan("replies are lost (C2)", _THREE, Act(0.01, "lose_replies", (0.7, 1.0))),
    _plan("fatal producer (C3)", _THREE, Act(0.07, "fatal")),
    _plan(
        "a record is refused (C6)",
        (_tx(0.02, *(_row() for _ in range(9))), _tx(0.05, _row())),
        Act(0.025, "refuse", (ORDER, "policy violated", 0.03)),
    ),
    _plan(
        "the record of the position is refused (C6)",
        _THREE,
        Act(0.06, "refuse", ("cdc.positions", "policy violated", 0.6)),
    ),
    _plan("no topic for dead letters (C12)", _POISON, Act(0.0, "no_topic", (DEAD_LETTERS, 0.4)), dead_letters=True),
    _plan(
        "one record of many is refused, and the next session sends it (C6)",
        (_tx(0.02, _row(), _row("d")), _tx(0.3, *(_row() for _ in range(12))), _tx(0.33, _row("b"))),
        Act(0.344, "refuse", (ORDER, "policy violated", 0.004)),
        latency=0.02,
    ),
    _plan(
        "dead letters wait for Kafka (C8)",
        (_tx(0.08, _row(payload=POISON)), _tx(0.09)),
        Act(0.06, "outage", (1.5,)),
        dead_letters=True,
    ),
    _plan(
        "SIGTERM while a partition is slow (D4)",
        (_tx(0.02, _row(), _row("d")), _tx(0.3, _row("d")), _tx(0.31, _row())),
        Act(0.29, "slow_partition", (ORDER, partition(b"d", 2), 3.0)),
        Act(0.35, "terminate"),
        drain=0.5,
    ),
    _plan("queue full (C9)", (_tx(0.02, *(_row() for _ in range(5))), _tx(0.03, _row("b"))), room=1),
    _plan("topic is missing (C12)", _THREE, Act(0.01, "no_topic", (ORDER, 0.3))),
    _plan("schema is not known yet (D1)", _THREE, Act(0.01, "schema_unknown", (0.3,))),
    _plan("poison stops (C8)", _POISON),
    _plan("poison goes to dead letters (C8)", _POISON, dead_letters=True),
    _plan(
        "too large for the topic (C7)",
        (_tx(0.02, _row(payload='"' + "x" * 900 + '"')), _tx(0.03)),
        Act(0.0, "limit", (ORDER, 600)),
    ),
    _plan("slot is dropped (B1)", _THREE, Act(0.1, "crash", (False,)), Act(0.11, "drop_slot")),
    _plan("slot is made anew (B1)", _THREE, Act(0.055, "crash", (False,)), Act(0.056, "create_slot_again")),
    _plan("slot is advanced (A19)", _THREE, Act(0.055, "crash", (False,)), Act(0.056, "advance_slot")),
    _plan("slot is invalidated (B2)", _THREE, Act(0.06, "invalidate_slot")),
    _plan("publication is dropped, 15 (B4)", _THREE, Act(0.03, "drop_publication"), version=15),
    _plan("publication is dropped, 18 (B4)", _THREE, Act(0.03, "drop_publication")),
    _plan("table leaves the publication (B5)", _THREE, Act(0.03, "leave_publication", (0.0,))),
    _plan("table is renamed (B6)", _THREE, Act(0.3, "rename_table")),
    _plan("column is added (B7)", _THREE, Act(0.04, "add_column")),
    _plan("columns are swapped (B7)", _THREE, Act(0.04, "swap_columns")),
    _plan("failover, synchronous (B12)", _THREE, Act(0.1, "sync_slot"), Act(0.3, "fail_over", (True,))),
    _plan("failover, asynchronous (B12)", _THREE, Act(0.1, "sync_slot"), Act(0.3, "fail_over", (False,))),
    _plan("frozen while another takes over (D6, B16)", _THREE, Act(0.055, "take_over", (3.0, False)), timeout=1.0),
    _plan("the clock on the wall jumps (C20)", _THREE, Act(0.06, "jump", (-86400.0,)), timeout=0.0),
    # No record of the position was delivered before the slot was re-created; only the process knows its position.
    _plan(
        "slot is made anew before Kafka was told (B1)",
        (_tx(0.002, _row()), _tx(0.4)),
        Act(0.0, "outage", (1.0,)),
        Act(0.1, "cut", (True,)),
        Act(0.11, "create_slot_again"),
        recorded=False,
        swept=False,  # who dies before it recorded the slot in Kafka leaves nothing to compare the slot with
    ),
    # Its rows come under the other name.
    _plan(
        "table is renamed and renamed back while nobody reads (B6)",
        _TWO,
        Act(1.2, "crash", (False,)),
        Act(1.21, "rename_while_away"),
    ),
)
_CRASHED: Final = (_tx(0.02, *(_row() for _ in range(6)), _row("b")), _tx(0.03, _row()))

_AT_LEAST_ONCE: Final = tuple(
    _plan(f"{what} (C17)", _CRASHED, Act(0.2, name, (ORDER, 2)))
    for what, name in (
        ("a record is gone from among others before it counts", "crash_and_lose"),
        ("a record is where nobody looks for it before it counts", "crash_and_misplace"),
        ("something else is where a record was before it counts", "crash_and_pretend"),
    )
)
_CUT_SHORT: Final = tuple(
    _plan(
        f"a record is gone, and a process dies {seconds:g} s later, while it sends what was behind it again (D1)",
        (_tx(0.02, *(_row("a") for _ in range(6))),),
        Act(0.45, "crash_and_lose", (ORDER, 2)),
        Act(0.4 + seconds, "crash", (False,)),
        latency=0.03,
        room=1,
    )
    for seconds in (0.5, 0.65, 0.825)
)
_FORGOTTEN: Final = (
    _plan("a broker has forgotten the producer (C6)", _THREE, Act(0.03, "refuse", (ORDER, NO_OFFSET, 0.5))),
)
_SWITCHED: Final = tuple(
    _plan(name, _THREE, *acts, guarantee=SWITCH, sequence=True)
    for name, *acts in (
        ("the guarantee is another one after a crash", Act(0.055, "crash", (True,)), Act(0.4, "crash", (False,))),
        ("the guarantee is another one after a stop", Act(0.3, "terminate"), Act(0.9, "terminate")),
        ("another guarantee takes over (B16)", Act(0.055, "take_over", (3.0, False))),
    )
)
_ON_ITS_WAY: Final = (
    _plan(
        "the guarantee is another one while a commit is on its way (B16)",
        tuple(_tx(2 + number / 4, _row("ab"[number % 2])) for number in range(48)),
        *(Act(at, "crash", (True,)) for at in (1.0, 7.4, 8.3, 9.4, 10.4, 10.6)),
        guarantee=SWITCH,
        latency=0.4,
    ),
)
_EXPIRED: Final = (
    _plan(
        "a session of another guarantee ends before it has found what was sent",
        _THREE,
        Act(0.018, "slow_partition", (POSITIONS, 0, 0.8)),
        Act(0.75, "crash", (False,)),
        *(Act(0.76, "slow_partition", (ORDER, number, 2.5)) for number in (0, 1)),
        Act(2.2, "cut", (True,)),
        guarantee=SWITCH,
    ),
    *(
        _plan(
            f"failover, asynchronous, {seconds:g} s after the last row (B13)",
            (*_THREE, *(_tx(5 + at / 10, _row("ab"[at % 2])) for at in range(6))),
            Act(0.1, "sync_slot"),
            Act(0.6 + seconds, "fail_over", (False,)),
            guarantee=EXACTLY_ONCE,
        )
        for seconds in (0.3, 0.6, 1.0)
    ),
    _plan("the log expires before a crash", _THREE, Act(0.3, "expire", (ORDER, 1.0)), Act(0.31, "crash", (False,))),
    _plan(
        "Kafka ends a transaction that is open for too long (C18)",
        _THREE,
        Act(0.06, "end_transaction"),
        guarantee=EXACTLY_ONCE,
    ),
    *(
        _plan(
            f"a transaction fails without a report, {what} (C18)",
            _THREE,
            *(Act(at, "spoil_transaction") for at in times),
            guarantee=EXACTLY_ONCE,
            sequence=True,
        )
        for what, times in (("and its events are sent again", (0.15,)), ("again and again", (0.07, 0.35, 0.7, 1.2)))
    ),
    _plan(
        "the coordinator is away when it is to commit (C18)",
        _THREE,
        Act(0.1, "outage", (1.0,)),
        guarantee=EXACTLY_ONCE,
        latency=0.05,
    ),
    _plan(
        "poison goes to dead letters, and is known there (C8)",
        _POISON,
        Act(0.25, "crash", (False,)),
        dead_letters=True,
        sequence=True,
    ),
)


def _retyped(name: str, *retypes: tuple[float, str, int], **changes: object) -> Plan:
    traffic = tuple(_tx(0.02 + 0.12 * at, _row("a", 3), _row("b", 2)) for at in range(6))
    acts = [Act(at, "retype_column", (column, type_oid)) for at, column, type_oid in retypes]
    return _plan(f"{name} (A1)", traffic, *acts, **changes)


_RETYPED: Final = (
    _retyped("the key becomes text", (0.0, "aggregateid", values.INT8), (0.3, "aggregateid", values.TEXT)),
    _retyped("the key becomes a number", (0.3, "aggregateid", values.INT8)),
    _retyped("the id becomes text", (0.0, "id", values.INT8), (0.3, "id", values.TEXT)),
    _retyped("a header becomes text", (0.0, "tenant", values.INT4), (0.3, "tenant", values.TEXT), headers=("tenant",)),
    _retyped("the payload becomes bytea and JSON", (0.2, "payload", values.BYTEA), (0.4, "payload", values.JSONB)),
    _retyped("the type becomes an enum, in text format", (0.3, "type", ENUM), (0.31, "tenant", values.BOOL)),
    _plan(
        "an enum becomes text before it was read (A2)",
        _THREE,
        Act(0.0, "retype_column", ("type", ENUM)),
        Act(0.01, "outage", (0.5,)),
        Act(0.3, "retype_column", ("type", values.TEXT)),
        Act(0.31, "crash", (False,)),
    ),
    # As numbers these topics have the bytes that they have as text.
    _plan(
        "the aggregate becomes text (A1)",
        (*(_tx(0.02 + 0.1 * at, _row(aggregate="payments")) for at in range(6)),),
        Act(0.0, "retype_column", ("aggregatetype", values.INT8)),
        Act(0.3, "retype_column", ("aggregatetype", values.TEXT)),
    ),
    _plan(
        "two text columns swap their names (A1)",
        _THREE,
        Act(0.03, "swap_columns", ("aggregateid", "payload")),
        Act(0.04, "retype_column", ("payload", values.TEXT)),
        Act(0.1, "swap_columns", ("aggregateid", "type")),
    ),
    _plan(
        "columns are dropped and added again (A1)",
        _THREE,
        Act(0.03, "move_column", ("aggregateid",)),
        Act(0.3, "move_column", ("id",)),
        Act(0.31, "move_column", ("tenant",)),
        headers=("tenant",),
    ),
    _plan(
        "the column of a header is added while rows wait (A5)",
        _THREE,
        Act(0.0, "drop_column", ("tenant",)),
        Act(0.04, "add_column", ("tenant",)),
        headers=("tenant",),
    ),
)
_INHERITED: Final = (
    _plan("a table inherits from the outbox from the start (B1)", _THREE, Act(0.0, "add_child", (True,))),
    _plan("a table begins to inherit from the outbox (B1)", _THREE, Act(0.3, "add_child", (True,))),
    _plan("a table inherits from the outbox and is not published (B1)", _THREE, Act(0.3, "add_child", (False,))),
    _plan(
        "a table begins to inherit from the outbox while the program is down (B1)",
        _THREE,
        Act(0.04, "outage", (0.5,)),
        Act(0.045, "add_child", (True,)),
        Act(0.3, "crash", (False,)),
    ),
    _plan(
        "a table inherits from the outbox no more, and a transaction of both is sent in part (B1)",
        (_tx(0.6, *(_row("ab"[at % 2]) for at in range(24))),),
        Act(0.0, "add_child", (True,)),
        Act(0.605, "freeze_walsender", (1.0,)),
        Act(1.5, "remove_child"),
        Act(1.51, "crash", (False,)),
        burst=1,
    ),
    _plan(
        "changes are accepted, and the first session after that cannot read binary values (A2)",
        (*_THREE, _tx(0.9, _row())),
        Act(0.0, "retype_column", ("type", ENUM)),
        Act(0.01, "outage", (0.5,)),
        Act(0.3, "retype_column", ("type", values.TEXT)),
        Act(0.31, "add_child", (True,)),
        Act(0.32, "crash", (False,)),
    ),
    _plan(
        "columns are domains (A3)",
        _THREE,
        *(
            Act(0.0, "retype_column", (name, type_oid))
            for type_oid, name in zip(DOMAINS, ("id", "aggregateid", "payload", "tenant"), strict=False)
        ),
        headers=("tenant",),
    ),
)
_FIRST: Final = (
    _plan(
        "a leader turns away the first batch (C6)",
        (_tx(0.02, *(_row() for _ in range(12))), _tx(0.05, _row())),
        Act(0.0, "unready", (ORDER, partition(b"a", 2), 1)),
        latency=0.05,
    ),
    _plan(
        "a leader turns away the first batch beside a partition that works (C6)",
        (_tx(0.02, _row(), *(_row("d") for _ in range(12))),),
        Act(0.0, "unready", (ORDER, partition(b"d", 2), 1)),
        latency=0.05,
    ),
    _plan(
        "a leader turns away the first batch behind a partition that works (C6)",
        (_tx(0.02, _row()), _tx(0.7, *(_row("d") for _ in range(12)))),
        Act(0.6, "unready", (ORDER, partition(b"d", 2), 1)),
        latency=0.05,
    ),
    _plan(
        "a leader turns away the first batch after it forgot the producer (C6)",
        (_tx(0.02, _row(), _row("d"), _row(), _row("d")), _tx(400, *(_row() for _ in range(12)))),
        Act(399.8, "forget_producers"),
        Act(399.9, "unready", (ORDER, partition(b"a", 2), 1)),
        latency=0.05,
        swept=False,  # ever so many calls
        keepalives=0.0,
    ),
)
_READ_BACK: Final = tuple(
    _plan(name, traffic, Act(0.018, "slow_partition", (POSITIONS, 0, 0.8)), *acts, **changes)
    for name, traffic, acts, changes in (
        (
            "PostgreSQL's clock goes back (C20)",
            (_tx(0.02, _row()), _tx(0.2, _row("d", 2)), _tx(0.3, _row("a", 2))),
            (Act(0.1, "clock_back", (500.0,)), Act(0.6, "crash", (False,))),
            {},
        ),
        (
            "many records are read back, and some are gone",
            tuple(_tx(0.02 + 0.01 * at, _row("ad"[at % 2], 3)) for at in range(12)),
            (Act(0.5, "compact_while_down", (ORDER, 0.6, False)),),
            {"sequence": True},
        ),
    )
)
_WHERE_IT_STANDS: Final = (
    _plan(
        "a transaction commits where the slot stands (A3)",
        (_tx(0.02, _row(), hold=2.5),),
        Act(2.51, "slow_partition", (POSITIONS, 0, 0.8)),
        Act(2.9, "crash", (False,)),
    ),
)
_BY_SQL: Final = (_plan("a slot that was made by SQL", _THREE, recorded=False),)
_TOMBSTONES: Final = (
    _tx(0.02, _row(), _row("b"), _row()),
    _tx(0.05, _row(payload=TOMBSTONE), _row("b")),
    _tx(0.08, _row(), _row("b", payload=TOMBSTONE)),
)
_COMPACTED: Final = tuple(
    replace(plan, name=f"{plan.name}{what}", guarantee=guarantee)
    for what, guarantee in (("", AT_LEAST_ONCE), (", the guarantee is another one", SWITCH))
    for plan in (
        _plan(
            "a topic is compacted (D1)",
            _TOMBSTONES,
            Act(0.03, "slow_partition", (POSITIONS, 0, 0.6)),  # so that the slot does not move
            Act(0.25, "compact_while_down", (ORDER, 1.0, False)),
        ),
        _plan(
            "a topic is compacted, and tombstones are deleted (D1)",
            _TOMBSTONES,
            Act(0.03, "slow_partition", (POSITIONS, 0, 0.6)),
            Act(0.25, "compact_while_down", (ORDER, 0.9, True)),
            Act(0.3, "compact", (ORDER, 1.0, True)),
        ),
    )
)
_MADE_ANEW: Final = (
    _plan(
        "a topic is made anew while the program is down (D4)",
        (*_THREE, _tx(1.5, _row("b"))),
        Act(1.2, "make_topic_anew", (ORDER,)),
    ),
)
_BOTH: Final = (*_FAULTS, *_RETYPED, *_INHERITED, *_FIRST, *_READ_BACK, *_WHERE_IT_STANDS, *_BY_SQL, *_MADE_ANEW)

SCENARIOS: Final = (
    *_BOTH,
    *_AT_LEAST_ONCE,
    *_CUT_SHORT,
    *_FORGOTTEN,
    *_SWITCHED,
    *_ON_ITS_WAY,
    *_EXPIRED,
    *_COMPACTED,
    *(replace(plan, name=f"{plan.name}, exactly once", guarantee=EXACTLY_ONCE, sequence=True) for plan in _BOTH),
)
