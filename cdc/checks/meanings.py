"""Every line that `check` can print, and what it is about: docs/check.md has them from here."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from cdc.checks.finding import Side


class Meaning(NamedTuple):
    """What passes, and why a line warns or fails; an empty text means that it never does."""

    side: Side
    passes: str
    warns: str = ""
    fails: str = ""


_POSTGRES: Final = {
    "postgres_reachable": (
        "the server of `[postgres] dsn` takes the connection",
        "",
        "it cannot be reached, or refuses: password, `pg_hba.conf`, certificate, a role that may not log in",
    ),
    "postgres_tls": (
        "TLS with a certificate that is verified, or a server on this machine",
        "others may listen, or may answer in the server's place: `sslmode=verify-full`",
        "",
    ),
    "postgres_version": ("14 or newer", "", "older"),
    "postgres_primary": ("a primary", "", "a standby: the slot and its reader belong to the primary"),
    "wal_level": ("`logical`", "", "anything else; the change needs a restart"),
    "replication_slots": (
        "there is ours, or room for it, in `max_replication_slots`",
        "",
        "all are taken, and ours is not there",
    ),
    "wal_senders": (
        "ours streams, or there is room for it, in `max_wal_senders`",
        "",
        "all are taken: the publisher could not connect",
    ),
    "wal_sender_timeout": (
        "the server notices when a publisher's machine vanishes",
        "it is 0: nobody takes over from a publisher that vanished",
        "",
    ),
    "replication_role": (
        "a superuser, a role with REPLICATION, or a member of `rds_replication`",
        "",
        "the role may not replicate",
    ),
    "direct_connection": (
        "a replication connection can be opened, and PostgreSQL itself answers",
        "a pooler stands between, which lets replication through for now",
        "a pooler that does not, a missing right, or no walsender left",
    ),
    "outbox_table": (
        "a table with the columns that the settings name, of types that can be published",
        "",
        "it is missing, a view, unlogged, or of another shape",
    ),
    "table_rights": (
        "the role may read the table: `audit`, `outbox purge`, `schema check --table` and parts of this check need it",
        "it may not; the publisher itself reads the WAL alone",
        "",
    ),
    "session_rights": (
        "the role sees what other sessions do",
        "it does not: `long_transactions` may miss some",
        "",
    ),
    "publication": (
        "it holds the table, with every column that is needed, and publishes inserts",
        "",
        "it is missing, or does not; a partitioned table needs `publish_via_partition_root`",
    ),
    "publication_rows": (
        "all rows are published",
        "a row filter leaves some out: what it leaves out is never seen",
        "",
    ),
    "publication_columns": ("all columns that are needed are published", "", ""),
    "publication_scope": (
        "nothing but inserts into the outbox",
        "other tables or changes are sent and thrown away: it costs, and breaks nothing",
        "",
    ),
    "replication_slot": (
        "ours is there and can be read; who reads it now",
        "somebody else reads it",
        "it is missing, lost, of another plugin or database. A new slot does not have what was committed before it:"
        " `audit --repair` publishes that",
    ),
    "slot_identity": (
        "slot, publication, table and settings are as the publisher left them in `[topics] positions`",
        "Kafka cannot tell now",
        "somebody moved or replaced one of them: rows in between were not published",
    ),
    "retained_wal": (
        "the slot holds no more WAL than usual",
        "it holds more than `max_wal_size`, or is near `max_slot_wal_keep_size`: find out why events are not delivered",
        "",
    ),
    "slot_wal_limit": (
        "`max_slot_wal_keep_size` guards the disk",
        "it is -1: a publisher that does not run fills the disk in the end, and that stops the database",
        "",
    ),
    "idle_slot_timeout": (
        "no slot is taken away because nobody reads it",
        "`idle_replication_slot_timeout` (PostgreSQL 18) takes it, and its events, when the publisher is away for long",
        "",
    ),
    "failover_slot": (
        "there is no standby, or the slot is a failover slot that waits for it (PostgreSQL 17)",
        "there is a standby that has no copy of the slot, or may be behind Kafka when it is promoted",
        "",
    ),
    "other_slots": (
        "no slot of others is abandoned",
        "one that nobody reads holds the disk, or is lost and takes a place",
        "",
    ),
    "long_transactions": (
        "no transaction that has written is open for longer than `--long-transaction`",
        "WAL is kept since it began, and `slot create` waits for its end",
        "",
    ),
    "prepared_transactions": ("likewise, of prepared transactions", "likewise; nobody may remember them", ""),
}
_KAFKA: Final = {
    "kafka_reachable": (
        "a broker of `bootstrap.servers` answers",
        "",
        "none does, or it refuses: password, certificate, protocol",
    ),
    "kafka_brokers": (
        "each broker answers where the cluster says that it is",
        "",
        "one does not: `advertised.listeners`, names or firewalls",
    ),
    "kafka_tls": ("TLS, or brokers on this machine", "others may listen", ""),
    "kafka_idempotence": ("the principal may use an idempotent producer", "", "it may not"),
    "transactions": (
        "with exactly-once: the brokers can keep transactions",
        "their settings may not be read",
        "there are fewer brokers than `transaction.state.log.replication.factor`, or partitions have no leader",
    ),
    "transaction_timeout": (
        "with exactly-once: `transaction.timeout.ms` is allowed",
        "",
        "it is more than the brokers' `transaction.max.timeout.ms`",
    ),
    "transactional_id": (
        "with exactly-once: the principal may use the slot's transactional id",
        "ACLs may not be seen, so that it is known only when it is used",
        "it may not",
    ),
    "event_topics": (
        "the topics that rows of the outbox go to are there, or `[topics] create` makes them",
        "which they are is not known: the outbox is empty; `--topic` names them",
        "some are missing: events would wait for them",
    ),
    "positions_topic": (
        "`[topics] positions` is there and compacted",
        "it is missing (`start` makes it), or not compacted: then the publisher forgets where it was",
        "",
    ),
    "dead_letter_topic": (
        'with `on_poison = "dead-letter"`: the topic is there and keeps everything',
        "it is missing (`start` makes it), or its retention deletes dead letters",
        "",
    ),
    "topic_rights": (
        "the principal may describe, read and write the topics",
        "READ or DESCRIBE_CONFIGS is missing: events may be sent twice, or be too large",
        "WRITE or DESCRIBE is missing, or READ on `[topics] positions`, or READ with `[delivery] sequence`",
    ),
    "topic_leaders": (
        "each partition has a leader, and each replica is in sync",
        "replicas are missing: one more broker, and writing stops or records are lost",
        "a partition has no leader: its events wait",
    ),
    "topic_replication": (
        '3 replicas or more, or `[topics] replication = "any"`',
        "fewer: the loss of a broker can be the loss of confirmed events",
        'likewise, with `[topics] replication = "refuse"`',
    ),
    "topic_in_sync": (
        "`min.insync.replicas` is 2 or more, or there is one replica",
        "it is 1: `acks=all` is the word of one broker",
        'it is more than there are replicas: nothing can be written; or it is 1 with `replication = "refuse"`',
    ),
    "topic_unclean_election": (
        "only replicas that have everything become leaders",
        "`unclean.leader.election.enable` is true: confirmed events may vanish",
        "",
    ),
    "topic_retention": (
        "how long events are kept, for you to judge",
        "`cleanup.policy` has `compact`: of each key only the last event stays",
        "",
    ),
    "topic_message_size": (
        "the largest value of each topic, as Avro, fits into `max.message.bytes` and into the producer's limits",
        "it does not, but may when it is compressed",
        "it does not: it would be poison",
    ),
}
_CONTRACTS: Final = {
    "accelerator": ("what makes records of rows", "", "`[delivery] accelerator` names one that cannot be used"),
    "contracts": ("they can be read and compiled", "there are none", "some cannot"),
    "registry_reachable": ("the registry answers, and takes the credentials", "", "it does not"),
    "registry_subjects": (
        "contracts of the outbox's events are registered, or `auto_register` will do that",
        "",
        "some are not, or the registry would refuse them",
    ),
    "event_types": (
        "each event type in the outbox has a contract, or goes in an envelope",
        "some have none, and become dead letters",
        "some have none, and the publisher would stop there",
    ),
    "outbox_rows": (
        "the latest 2,000 rows fit their contracts",
        "some become dead letters; or the rows cannot be read",
        "some do not: the publisher would stop there",
    ),
}
_SIDES: Final[dict[Side, dict[str, tuple[str, str, str]]]] = {
    "postgres": _POSTGRES,
    "kafka": _KAFKA,
    "contracts": _CONTRACTS,
}

MEANINGS: Final[dict[str, Meaning]] = {
    name: Meaning(side, *texts) for side, lines in _SIDES.items() for name, texts in lines.items()
}


def table(side: Side) -> Iterator[str]:
    """The lines of one side as a table of Markdown."""
    yield "| line | passes | warns | fails |"
    yield "|---|---|---|---|"
    for name, meaning in MEANINGS.items():
        if meaning.side == side:
            yield f"| `{name}` | {meaning.passes} | {meaning.warns or '-'} | {meaning.fails or '-'} |"
