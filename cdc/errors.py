"""Exceptions of cdc-publisher, by how the operator responds, with exit codes.

CdcError
├── ConfigError           invalid settings or contracts                                exit 78
├── ProtocolError         undecodable data in the replication stream                   exit 1
├── PoisonEvent           an outbox row that cannot become a record                    exit 1
├── PostgresError         wrong setup of slot, publication, table or role              exit 1
│   ├── PostgresRefused   PostgreSQL refuses the connection: password, pg_hba.conf, TLS exit 1
│   ├── SlotLost          the slot does not exist, or PostgreSQL removed its WAL       exit 1
│   └── RecoveryUnfinished  a recovery of the slot has begun and not ended              exit 1
├── KafkaError            a permanent error of Kafka: authorization, size, settings    exit 1
│   └── KafkaRefused      Kafka refuses the connection, or its certificate is invalid  exit 1
├── Everywhere            a permanent error that every event would meet                exit 1
├── LocalStackError       the servers of the local stack cannot run                    exit 1
└── Temporary             retried with exponential backoff                             exit 75
    ├── PostgresUnavailable
    │   ├── Locked            another session holds a lock that a statement needs
    │   └── BinaryUnreadable  a binary value of an unknown type: the next session reads text
    ├── SlotActive        another process reads the slot; this one is the standby
    └── KafkaUnavailable
        └── Fenced        another producer took over the transactional id
"""


class CdcError(Exception):
    """Base of all exceptions that cdc-publisher raises deliberately.

    `message` names the error and its place, `hint` what to do next. Both are one line.
    """

    exit_code = 1
    hint = ""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = " ".join(message.split())
        self.hint = hint or self.hint
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ConfigError(CdcError):
    """Invalid settings or contracts; `problems` has one line for each problem."""

    exit_code = 78

    def __init__(self, *problems: str, hint: str = "") -> None:
        self.problems = problems
        super().__init__("; ".join(problems), hint)


class ProtocolError(CdcError):
    """Undecodable data in the replication stream."""

    hint = "the slot has not moved; please report this with the PostgreSQL version"


class Everywhere(CdcError):
    """A permanent error that every event would meet, so that it makes none of them poison."""


class Unfit(ValueError):
    """The reason why an event cannot become a record; `kind` is the same as a stable keyword."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


class PoisonEvent(CdcError):
    """An outbox row that cannot become a record.

    `position` is the value of the header `cdc-position`; `event_id` is the row's id as text, or empty if the id itself
    is invalid; `kind` is one of unreadable-row, payload-mismatch, contract-missing, schema-refused, kafka-refused,
    too-large, not-transactional.
    """

    hint = "correct the contract or fix the source of the row, then start again; the slot has not moved past the event"

    def __init__(self, reason: str, *, position: str, event_id: str, kind: str, hint: str = "") -> None:
        self.reason, self.position, self.event_id, self.kind = reason, position, event_id, kind
        super().__init__(f"poison event {event_id or '(no id)'} at position {position}: {reason}", hint)


class PostgresError(CdcError):
    """A permanent error of PostgreSQL's setup, which waiting does not resolve."""


class PostgresRefused(PostgresError):
    """PostgreSQL refuses the connection. After a successful one, a password rotation may be in progress."""


class SlotLost(PostgresError):
    """The replication slot does not exist, or PostgreSQL removed the WAL that it retained."""


class RecoveryUnfinished(PostgresError):
    """A recovery of the slot has begun and not ended: nothing may stream from the slot before its end."""


class KafkaError(CdcError):
    """A permanent error of Kafka: a retry would fail too."""


class KafkaRefused(KafkaError):
    """Credentials or certificates are refused. After a successful connection, a rotation may be in progress."""


class LocalStackError(CdcError):
    """The local PostgreSQL or Kafka cannot be installed, started or stopped."""


class Temporary(CdcError):
    """A transient error: retry after a pause."""

    exit_code = 75


class PostgresUnavailable(Temporary):
    """PostgreSQL is unreachable or closed the connection."""


class Locked(PostgresUnavailable):
    """Another session of PostgreSQL holds a lock that a statement needs."""

    hint = "wait for the end of that transaction, or end it"


class BinaryUnreadable(PostgresUnavailable):
    """A value came in the binary format of a type without a decoder: the next session must request text."""

    hint = "the next session requests text instead of binary values"


class SlotActive(Temporary):
    """Another process reads from the slot; `held` says why it is not a working publisher, if that is known."""

    def __init__(self, message: str, hint: str = "", *, held: str = "") -> None:
        super().__init__(message, hint)
        self.held = held


class KafkaUnavailable(Temporary):
    """Kafka is unreachable, or the producer lost its session."""


class Fenced(KafkaUnavailable):
    """Another producer uses the transactional id, or the broker fenced this one after a timeout."""
