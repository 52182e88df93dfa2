"""What can go wrong, split by what the operator does about it.

CdcError
├── ConfigError           the settings or contracts are wrong: correct them            exit 78
├── ProtocolError         the replication stream holds bytes we cannot decode          exit 1
├── PoisonEvent           one outbox row cannot become a record: row or contract       exit 1
├── PostgresError         PostgreSQL is not as it must be: slot, publication, role     exit 1
│   ├── PostgresRefused   it refuses the connection: password, pg_hba.conf, certificate exit 1
│   └── SlotLost          the slot does not exist, or what it held is gone              exit 1
├── KafkaError            Kafka refused for good: authorization, size, settings        exit 1
│   └── KafkaRefused      it refuses the connection, or we refuse its certificate       exit 1
├── LocalStackError       the servers of the local stack cannot run                    exit 1
└── Temporary             passes by itself: retried with back-off                      exit 75
    ├── PostgresUnavailable
    ├── SlotActive        another process reads the slot: this one is the standby
    └── KafkaUnavailable
        └── Fenced        another publisher has taken over our transactions
"""


class CdcError(Exception):
    """Base of everything cdc-publisher raises on purpose.

    `message` says what is wrong and where; `hint` says what to do next. Both are one line.
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
    """The settings or the contracts are wrong; `problems` has one line for each that was found."""

    exit_code = 78

    def __init__(self, *problems: str, hint: str = "") -> None:
        self.problems = problems
        super().__init__("; ".join(problems), hint)


class ProtocolError(CdcError):
    """The replication stream holds bytes we cannot decode."""

    hint = "the slot has not moved; please report this with the PostgreSQL version"


class Unfit(ValueError):
    """Why an event cannot become a record; `kind` is the same in a word for machines."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        super().__init__(reason)


class PoisonEvent(CdcError):
    """An outbox row that cannot become a record.

    `position` is what the header `cdc-position` would be, `event_id` the row's id as text (empty when the id itself
    is what is wrong), `kind` one of unreadable-row, payload-mismatch, contract-missing, schema-refused, too-large.
    """

    hint = "correct the contract or remove the row's cause, then start again; the slot has not moved past it"

    def __init__(self, reason: str, *, position: str, event_id: str, kind: str) -> None:
        self.reason, self.position, self.event_id, self.kind = reason, position, event_id, kind
        super().__init__(f"poison event {event_id or '(no id)'} at position {position}: {reason}")


class PostgresError(CdcError):
    """PostgreSQL is not as it must be, and will not be by waiting."""


class PostgresRefused(PostgresError):
    """PostgreSQL refuses the connection. Where it was accepted before, a password may be about to be changed."""


class SlotLost(PostgresError):
    """The replication slot is not there, or PostgreSQL has removed what it held."""


class KafkaError(CdcError):
    """Kafka refused, and will again."""


class KafkaRefused(KafkaError):
    """No connection: credentials or certificates. Where it was accepted before, they may be about to be changed."""


class LocalStackError(CdcError):
    """The local PostgreSQL or Kafka cannot be installed, started or stopped."""


class Temporary(CdcError):
    """Passes by itself; worth another try after a pause."""

    exit_code = 75


class PostgresUnavailable(Temporary):
    """PostgreSQL cannot be reached, or ended the connection."""


class SlotActive(Temporary):
    """Another process reads from the slot; `held` says why that one is no publisher at work, if so."""

    def __init__(self, message: str, hint: str = "", *, held: str = "") -> None:
        super().__init__(message, hint)
        self.held = held


class KafkaUnavailable(Temporary):
    """Kafka cannot be reached, or lost the producer's session."""


class Fenced(KafkaUnavailable):
    """Another producer has the transactional id, or the broker took it from us for being late."""
