"""Where the publisher reads rows from, a replication slot or the table, and what the campaign needs to know of each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from tests.torture.ledger import Ledger
from tests.torture.watch import Watch

SLOT: Final = "torture"
"""The name of the slot, or of the relay."""
Sql = Callable[..., list[tuple[Any, ...]]]


class Source(Protocol):
    """One kind of source. What asks PostgreSQL raises psycopg.OperationalError while that is down."""

    @property
    def server(self) -> Mapping[str, str]:
        """Settings of PostgreSQL."""
        ...

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings of the publisher."""
        ...

    @property
    def commands(self) -> Sequence[Sequence[str]]:
        """What prepares it."""
        ...

    @property
    def silent_seconds(self) -> float:
        """A publisher that is frozen for longer is replaced."""
        ...

    def end(self) -> int:
        """How far rows are committed now."""
        ...

    def is_in_kafka(self, end: int) -> bool:
        """Whether Kafka has more than was committed then."""
        ...

    def is_confirmed(self, end: int) -> bool:
        """Whether the publisher has confirmed all that was committed then, when nothing was written since."""
        ...

    def in_flight(self) -> int:
        """How much is known to be committed or read, and was not seen acknowledged."""
        ...

    def is_busy(self) -> bool:
        """Whether a publisher that dies now leaves something that will be read again."""
        ...

    def backends(self) -> list[int]:
        """The pids of the processes of PostgreSQL that the publisher reads from."""
        ...


class Slot:
    """A replication slot: positions are LSNs."""

    server: Final = {"wal_sender_timeout": "6s"}
    settings: Final = {"postgres": {"publication": SLOT}}
    commands = (("outbox", "init"), ("slot", "create"))
    silent_seconds = 7.5

    def __init__(self, sql: Sql, ledger: Ledger, watch: Watch) -> None:
        self._sql = sql
        self._ledger = ledger
        self._watch = watch

    def end(self) -> int:
        return self._lsn("pg_current_wal_flush_lsn()")

    def is_in_kafka(self, end: int) -> bool:
        return self._watch.settled > end

    def is_confirmed(self, end: int) -> bool:
        slot = f"(select confirmed_flush_lsn from pg_replication_slots where slot_name = '{SLOT}')"
        return self._lsn(slot) >= end

    def in_flight(self) -> int:
        return self._watch.unacknowledged

    def is_busy(self) -> bool:
        return self._watch.is_busy

    def backends(self) -> list[int]:
        return [pid for (pid,) in self._sql("select active_pid from pg_replication_slots where active")]

    def _lsn(self, expression: str) -> int:
        ((value,),) = self._sql(f"select ({expression} - '0/0'::pg_lsn)::int8")
        return int(value)


class Polling:
    """A relay of the table: what is committed and in Kafka is counted in events. Confirmed rows are deleted."""

    server: Final = {"wal_level": "replica"}
    settings: Final = {"postgres": {"source": "polling"}}
    commands = (("outbox", "init", "--polling"),)
    silent_seconds = 30.0

    def __init__(self, sql: Sql, ledger: Ledger, watch: Watch) -> None:
        self._sql = sql
        self._ledger = ledger
        self._watch = watch

    def end(self) -> int:
        return self._ledger.events

    def is_in_kafka(self, end: int) -> bool:
        return len(self._watch.proven) > end

    def is_confirmed(self, end: int) -> bool:  # noqa: ARG002 (nothing was written since)
        left = "select (select count(*) from outbox), (select count(*) from cdc_ticks)"
        return self._sql(left) == [(0, 1)]

    def in_flight(self) -> int:
        return max(0, self._ledger.events - len(self._watch.proven))

    def is_busy(self) -> bool:
        return self._ledger.events > self._watch.confirmed

    def backends(self) -> list[int]:
        relays = "select pid from pg_stat_activity where application_name like 'cdc-publisher relay%' order by pid"
        return [pid for (pid,) in self._sql(relays)]


SOURCES: Final[dict[str, Callable[[Sql, Ledger, Watch], Source]]] = {"slot": Slot, "polling": Polling}
