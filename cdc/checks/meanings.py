"""The meaning of every line that `check` can print; docs/check.md contains these tables."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from cdc.checks.finding import Side


class Meaning(NamedTuple):
    """The condition for a pass, a warning and a failure; empty if the line never warns or fails."""

    side: Side
    passes: str
    warns: str = ""
    fails: str = ""


_POSTGRES: Final = {
    "postgres_reachable": (
        "the server of `[postgres] dsn` accepts the connection",
        "",
        "it cannot be reached, or refuses: password, `pg_hba.conf`, certificate, a role that may not log in",
    ),
    "postgres_tls": (
        "TLS with a verified certificate, or a server on this machine",
        "others may eavesdrop, or impersonate the server: use `sslmode=verify-full`",
        "",
    ),
    "postgres_version": (
        "14 or newer",
        "",
        "older",
    ),
    "postgres_primary": (
        "a primary",
        "",
        "a standby: the slot and its reader belong to the primary",
    ),
    "polling_connection": (
        "with polling: PostgreSQL itself answers, not a pooler",
        "a pooler is in between: a standby takes over after the lease only, and NOTIFY is not heard",
        "",
    ),
    "polling_columns": (
        "with polling: the columns `cdc_tx` and `cdc_seq` are there, without a default, each with an index",
        "",
        "they are not, or rows may be in foreign tables: run `outbox init --polling`",
    ),
    "polling_sequence": (
        "with polling: one ascending sequence with CACHE 1 numbers the rows",
        "",
        "it is missing, cycles, or has a cache: rows of a key would be sent in another order than they were inserted",
    ),
    "polling_trigger": (
        "with polling: a trigger stamps each row, ENABLE ALWAYS, in each table of the outbox; no other runs after it",
        "",
        "it is missing somewhere, disabled, of another version, or not the last one; or rows may move to another"
        " partition",
    ),
    "polling_ids": (
        "with polling: the id is NOT NULL and unique in each table that holds rows",
        "",
        "it is not: events that are sent again are recognised by their ids",
    ),
    "polling_relay": (
        "with polling: `cdc_relay` and `cdc_ticks` are there, and relay `[postgres] slot` is that of this outbox",
        "",
        "they are not, or the relay is that of another outbox",
    ),
    "polling_rights": (
        "with polling: the role may read the outbox, write the relay's tables and, unless rows are marked, delete rows",
        "",
        "it may not, or row-level security may hide rows from it: `outbox init --polling --role` grants what it needs",
    ),
    "polling_relays": (
        "with polling: the outbox has one relay",
        "",
        "it has several: one may delete what another has not sent",
    ),
    "polling_strays": (
        "with polling: each row was or will be in a batch",
        'some will not: they were written without the trigger; with `[outbox] published = "delete"` also rows that'
        " should be deleted",
        "",
    ),
    "polling_handover": (
        "with polling: no slot publishes rows of this relay",
        "after `outbox init --polling`, the slot of this name publishes until it has confirmed the reported LSN",
        "",
    ),
    "polling_numbers": (
        "with polling: reports how many numbers the sequence gave out, and how many rows batches had, for you to judge",
        "",
        "",
    ),
    "wal_level": (
        "`logical`",
        "",
        "anything else; changing it requires a restart",
    ),
    "replication_slots": (
        "the publisher's slot exists, or `max_replication_slots` has room for it",
        "",
        "all slots are taken, and the publisher's does not exist",
    ),
    "wal_senders": (
        "the publisher is streaming, or `max_wal_senders` has room for it",
        "",
        "all are taken: the publisher could not connect",
    ),
    "wal_sender_timeout": (
        "the server detects when a publisher's machine disappears",
        "it is 0: a standby cannot take over from a publisher that disappeared",
        "",
    ),
    "replication_role": (
        "a superuser, a role with REPLICATION, or a member of `rds_replication`",
        "",
        "the role may not replicate",
    ),
    "direct_connection": (
        "a replication connection can be opened, and PostgreSQL itself answers",
        "a pooler is in between, which allows replication for now",
        "a pooler that does not allow it, a missing privilege, or no free walsender",
    ),
    "database_encoding": (
        "text is stored in an encoding that PostgreSQL converts to UTF-8",
        "it is SQL_ASCII, which accepts any bytes: rows whose text is not UTF-8 are poison events",
        "",
    ),
    "outbox_table": (
        "a table with the configured columns, of types that can be published; or none, where all events are messages",
        "",
        "it is missing, a view, unlogged, or lacks such columns",
    ),
    "message_function": (
        "`outbox_emit` is there, runs as its owner with a fixed `search_path`, and may be called by granted roles only",
        "it is missing, made by other settings, unsafe, or every role may call it",
        "",
    ),
    "message_rights": (
        "only granted roles may call `pg_logical_emit_message`",
        "every role may, and so invent events",
        "",
    ),
    "table_rights": (
        "the role may read the table: `audit`, `outbox purge`, `schema check --table` and parts of this check need it",
        "it may not, or row-level security may hide rows from it; the publisher itself reads only the WAL",
        "",
    ),
    "session_rights": (
        "the role can see the activity of other sessions",
        "it cannot: `long_transactions` may miss some",
        "",
    ),
    "publication": (
        "it contains the table, with every column that is needed, and publishes inserts; for messages it may be empty",
        "",
        "it is missing, or does not; a partitioned table needs `publish_via_partition_root`",
    ),
    "outbox_children": (
        "all tables whose rows are rows of the outbox are published: none, or tables that inherit from it",
        "there are foreign tables among its partitions or children: rows that are inserted there are never published",
        "a table that inherits from the outbox is unlogged or not published as it is; or a partition is unlogged",
    ),
    "outbox_moves": (
        "an UPDATE of a row is never an event",
        "an UPDATE may move a row to another partition, or let it pass a row filter: its event is published again",
        "",
    ),
    "outbox_order": (
        "a column numbers the rows: the sequence of an identity or serial column, with CACHE 1",
        "there is none: after a loss of the slot, `recover` may send events of a key in another order than they were"
        " committed in",
        "",
    ),
    "publication_rows": (
        "all rows are published",
        "a row filter excludes some rows: the publisher never sees them",
        "",
    ),
    "publication_columns": (
        "all columns that are needed are published",
        "",
        "",
    ),
    "publication_scope": (
        "only inserts into the outbox are published",
        "other tables or changes are sent and discarded: harmless, but costs resources",
        "",
    ),
    "replication_slot": (
        "it exists and can be read; reports its current reader",
        "another client reads it",
        "it is missing, lost, of another plugin or database. A new slot does not contain earlier commits: `recover`"
        " creates it and publishes those",
    ),
    "slot_identity": (
        "server, slot, publication, table, settings, Kafka cluster and topics match the publisher's record in"
        " `[topics] positions`",
        "the record cannot be read from Kafka now; or topics are gone, or the server was set back",
        "one of them was moved or replaced, or the record is gone: `start` refuses; events may be lost",
    ),
    "recovery": (
        "reports the horizon since when `recover` would look for missing events after a loss of the slot",
        "Kafka has no horizon, and `track_commit_timestamp` is off; or rows are deleted before they could be published"
        " again",
        "",
    ),
    "retained_wal": (
        "the slot retains no more WAL than usual",
        "it retains more than `max_wal_size`, or is near `max_slot_wal_keep_size`: find out why events are not"
        " delivered",
        "",
    ),
    "slot_wal_limit": (
        "`max_slot_wal_keep_size` protects the disk",
        "it is -1: a stopped publisher eventually fills the disk, which stops the database",
        "",
    ),
    "idle_slot_timeout": (
        "slots are not invalidated for being inactive",
        "`idle_replication_slot_timeout` (PostgreSQL 18) invalidates the slot, and loses its events, after a long"
        " outage of the publisher",
        "",
    ),
    "synchronous_standby": (
        "commits do not wait for the publisher",
        "`synchronous_standby_names` matches the publisher, as `*` does: commits wait until Kafka has their events, and"
        " for as long as the publisher is stopped; name the standbys in it",
        "",
    ),
    "failover_slot": (
        "there is no standby, or the slot is a failover slot synchronized to it (PostgreSQL 17)",
        "a standby has no copy of the slot, or may be behind Kafka when it is promoted; or the slot waits"
        " for an absent one",
        "",
    ),
    "other_slots": (
        "no other slot is abandoned",
        "an inactive slot retains WAL, or is lost and occupies a place",
        "",
    ),
    "long_transactions": (
        "no transaction that has written is open for longer than `--long-transaction`",
        "WAL is retained since it began, and `slot create` waits for its end",
        "",
    ),
    "prepared_transactions": (
        "no prepared transaction is open for longer than that",
        "the same; prepared transactions are easily forgotten",
        "",
    ),
}
_KAFKA: Final = {
    "kafka_reachable": (
        "a broker of `bootstrap.servers` answers",
        "",
        "none does, or it refuses: password, certificate, protocol",
    ),
    "kafka_brokers": (
        "each broker answers at the address that the cluster advertises",
        "",
        "one does not: check `advertised.listeners`, names or firewalls",
    ),
    "kafka_tls": (
        "TLS, or brokers on this machine",
        "others may eavesdrop",
        "",
    ),
    "kafka_produce": (
        "reports that nothing is produced: only `start` shows what brokers refuse",
        "",
        "`api.version.request` and `broker.version.fallback` make librdkafka find no idempotent producer",
    ),
    "kafka_idempotence": (
        "the principal may use an idempotent producer",
        "",
        "it may not",
    ),
    "transactions": (
        "with exactly-once: the brokers support transactions",
        "their settings may not be read",
        "there are fewer brokers than `transaction.state.log.replication.factor`, or partitions have no leader",
    ),
    "transaction_timeout": (
        "with exactly-once: `transaction.timeout.ms` is allowed",
        "",
        "it exceeds the brokers' `transaction.max.timeout.ms`",
    ),
    "transactional_id": (
        "with exactly-once: the principal may use the slot's transactional id",
        "ACLs are not visible, so this can only be determined at its first use",
        "it may not",
    ),
    "event_topics": (
        "the topics of the rows in the outbox exist, or `[topics] create` creates them",
        "the topics are unknown: the outbox is empty; name them with `--topic`",
        "some are missing: events would wait for them",
    ),
    "positions_topic": (
        "`[topics] positions` exists and is compacted",
        "it is missing (`start` creates it), or not compacted: then the publisher loses its record of the slot",
        "",
    ),
    "dead_letter_topic": (
        'with `on_poison = "dead-letter"`: the topic exists and retains everything',
        "it is missing (`start` creates it), or its retention deletes dead letters",
        "",
    ),
    "topic_rights": (
        "the principal may describe, read and write the topics",
        "READ or DESCRIBE_CONFIGS is missing: events may be sent twice, or exceed the size limit unnoticed",
        "WRITE or DESCRIBE is missing, or READ on `[topics] positions`, or READ with `[delivery] sequence`",
    ),
    "topic_leaders": (
        "each partition has a leader, and each replica is in sync",
        "replicas are missing: if one more broker fails, writing stops or records are lost",
        "a partition has no leader: its events wait",
    ),
    "topic_replication": (
        '3 replicas or more, or `[topics] replication = "any"`',
        "fewer: losing a broker can lose acknowledged events",
        'the same, with `[topics] replication = "refuse"`',
    ),
    "topic_in_sync": (
        "`min.insync.replicas` is 2 or more, or there is one replica",
        "it is 1: `acks=all` can mean one broker",
        'it exceeds the number of replicas: nothing can be written; or it is 1 with `replication = "refuse"`',
    ),
    "topic_unclean_election": (
        "only in-sync replicas can become leaders",
        "`unclean.leader.election.enable` is true: acknowledged events may be lost",
        "",
    ),
    "topic_retention": (
        "reports how long events are retained, for you to judge",
        "`cleanup.policy` includes `compact`: only the last event of each key is retained, and a null payload sent as"
        " text deletes its key",
        "",
    ),
    "topic_timestamps": (
        "the topic of the oldest waiting row takes its commit time, or with `[record] timestamp` the times of the"
        " column in the first waiting rows; or no row waits, or a publisher reads the slot",
        'the topic deletes the row at once (`retention.ms`), or refuses it with `on_poison = "dead-letter"`',
        "`message.timestamp.before.max.ms` or `message.timestamp.after.max.ms` refuses the row",
    ),
    "topic_message_size": (
        "the largest value of each topic, as it is sent, fits into `max.message.bytes` and into the producer's limits",
        "it does not, but may fit when compressed",
        "it does not: it would be poison",
    ),
}
_CONTRACTS: Final = {
    "accelerator": (
        "reports which encoder is used, and how to install the native accelerator if it is missing",
        "",
        "`[delivery] accelerator` names one that cannot be used",
    ),
    "contracts": (
        "all contracts can be read and compiled, or text needs none",
        "there are none",
        "some cannot",
    ),
    "registry_reachable": (
        "the registry answers, and accepts the credentials",
        "",
        "it does not",
    ),
    "registry_subjects": (
        "contracts of the outbox's events are registered, or `auto_register` will register them",
        "",
        "some are not, or the registry would reject them",
    ),
    "record_values": (
        "each event type in `[record.values]` has a contract or rows; not shown without that setting",
        "some have neither: the name may be misspelled",
        "",
    ),
    "event_types": (
        "each event type in the outbox has a contract, or is sent as text or in an envelope",
        "some have none, and become dead letters",
        "some have none, and the publisher would stop there",
    ),
    "outbox_rows": (
        "the latest 2,000 rows match their contracts",
        "some become dead letters; or every value of a bytes field looks like base64; or the rows cannot be read",
        "some do not match: the publisher would stop there",
    ),
}
_FLEET: Final = {
    "unit_files": (
        "each unit's file can be used, and has a slot of its own",
        "the folder has no unit",
        "a file cannot be used, or two units have one slot",
    ),
    "fleet_slots": (
        "each server has room for the slots of all units in `max_replication_slots`",
        "a server cannot be asked",
        "one has not",
    ),
    "fleet_walsenders": (
        "each server has room for a walsender of each unit in `max_wal_senders`",
        "a server cannot be asked",
        "one has not",
    ),
    "fleet_connections": (
        "each server has room for two connections of each unit in `max_connections`",
        "a server cannot be asked",
        "one has not",
    ),
    "fleet_other_slots": (
        "every slot of `pgoutput` in the databases of units is that of a unit, or is read",
        "some are not: they retain WAL, as slots of former units do, and those of new parts until their units start",
        "",
    ),
    "fleet_old_publications": (
        "no publication in the databases of units is left of an outbox that a split replaced, or that was dropped",
        "some are",
        "",
    ),
}
_SIDES: Final[dict[Side, dict[str, tuple[str, str, str]]]] = {
    "postgres": _POSTGRES,
    "kafka": _KAFKA,
    "contracts": _CONTRACTS,
    "fleet": _FLEET,
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
