"""`outbox init --polling` on a real server: what it makes of a table, and what bad input gets."""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer

from cdc.config.loading import load
from cdc.delivery.positions import SlotRecord
from cdc.errors import PostgresError
from cdc.kafka import positions
from cdc.polling_setup.run import Options, Setup
from cdc.polling_setup.to_slot import Takeover
from cdc.postgres import polling_defects, relay_facts, slots
from cdc.postgres.connection import connect
from tests.integration.checking import no_role, role
from tests.pipeline import Pipeline, prepare

OLD_TABLE = """
    create table outbox (id uuid primary key default gen_random_uuid(), aggregatetype text not null,
    aggregateid text not null, type text not null, payload jsonb, created_at timestamptz not null default now())
"""


@pytest.fixture
def polled(bare_pipeline: Pipeline) -> Pipeline:
    """A pipeline whose source is polling, without Kafka."""
    bare_pipeline.settings["postgres"]["source"] = "polling"
    bare_pipeline.settings["outbox"] = {"published": "mark"}
    del bare_pipeline.settings["kafka"]
    return bare_pipeline


def init(pipeline: Pipeline, *options: str, code: int = 0) -> str:
    """Run `outbox init --polling`; return its output, or its errors."""
    done = pipeline.run("outbox", "init", "--polling", *options)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stderr if code else done.stdout


def row_of_relay(pipeline: Pipeline) -> relay_facts.Relay:
    with connect(pipeline.dsn) as connection:
        return relay_facts.require(connection, load(pipeline.configure(), environ={}))


def defects(pipeline: Pipeline) -> dict[str, str]:
    """The requirements that are not met."""
    with connect(pipeline.settings["postgres"]["dsn"]) as connection:
        found = polling_defects.read(connection, load(pipeline.configure(), environ={}))
    return {name: defect.problem for name, defect in found.items() if defect}


def unsent(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    """The numbers in the payloads of rows that are not confirmed, in the order of the relay."""
    condition = relay_facts.unconfirmed(row_of_relay(pipeline)).as_string()
    return pipeline.sql(f"select (payload->>'seq')::int from outbox t where {condition} order by cdc_seq")


def stamps(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.sql("select cdc_seq, cdc_tx = pg_current_xact_id() from outbox order by cdc_seq nulls first")


def test_init_makes_table_trigger_and_relay_once(polled: Pipeline) -> None:
    printed = init(polled, "--print")
    assert polled.sql("select to_regclass('outbox')") == [(None,)]
    made = init(polled)
    assert "created table public.outbox" in made
    assert "created relay" in made
    for statement in ("CREATE TABLE", "CREATE SEQUENCE", "ENABLE ALWAYS TRIGGER zz_cdc_stamp", "cdc_ticks"):
        assert statement in printed
    assert defects(polled) == {}
    before = polled.sql("select xmin, id from cdc_relay")
    assert "are prepared already" in init(polled)
    assert polled.sql("select xmin, id from cdc_relay") == before
    assert init(polled, "--print").strip() == "-- nothing is missing"
    relay = row_of_relay(polled)
    assert (relay.confirmed, relay.cleared, relay.epoch, relay.handover) == ("2:2:", "1:1:", 0, None)


def test_rows_get_both_values_whatever_the_writer_gives_and_keep_them(polled: Pipeline) -> None:
    init(polled)
    polled.insert(1)
    columns = "aggregatetype, aggregateid, type, payload, cdc_tx, cdc_seq"
    polled.sql(f"insert into outbox ({columns}) values ('note', 'k', 'Noted', '{{}}', null, null)")
    polled.sql(f"insert into outbox ({columns}) values ('note', 'k', 'Noted', '{{}}', '7', 1)")
    with polled.connect() as connection:
        connection.execute("set session_replication_role = replica")
        with connection.cursor().copy(f"copy outbox ({columns}) from stdin") as copy:
            copy.write("note\tk\tNoted\t{}\t\\N\t\\N\n")
        connection.execute("set session_replication_role = origin")
        connection.execute("update outbox set cdc_tx = '5', cdc_seq = 99, payload = '[]'")
        connection.execute(
            "insert into outbox select * from outbox where false on conflict (id) do update set cdc_seq = 5"
        )
    assert [number for number, _ in stamps(polled)] == [1, 2, 3, 4]
    assert polled.sql("select count(distinct cdc_tx), min(cdc_tx::text::int8) > 100 from outbox") == [(4, True)]


def test_a_writer_needs_no_right_but_to_insert(polled: Pipeline) -> None:
    init(polled)
    name = role(polled, "login")
    polled.sql(f'grant insert on outbox to "{name}"')
    with psycopg.connect(polled.settings["postgres"]["dsn"], autocommit=True) as writer:
        writer.execute("insert into outbox (aggregatetype, aggregateid, type) values ('note', 'k', 'Noted')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute("select nextval('outbox_cdc_seq')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.execute("select outbox_cdc_stamp()")
    no_role(polled, name)
    assert stamps(polled) == [(1, False)]


def test_a_role_gets_what_the_relay_needs(polled: Pipeline) -> None:
    polled.settings["outbox"]["published"] = "delete"
    init(polled)
    name = role(polled, "login")
    lacking = defects(polled)["polling_rights"]
    for right in ("SELECT on public.outbox", "UPDATE on public.cdc_relay", "DELETE on public.cdc_ticks", "sequence"):
        assert right in lacking
    dsn = polled.settings["postgres"]["dsn"]
    polled.settings["postgres"]["dsn"] = polled.dsn
    assert f"granted role {name}" in init(polled, "--role", name)
    polled.settings["postgres"]["dsn"] = dsn
    assert defects(polled) == {}
    no_role(polled, name)


def test_a_table_with_rows_asks_whether_they_are_published(polled: Pipeline) -> None:
    polled.sql(OLD_TABLE)
    polled.insert(1, 2)
    polled.insert(3)
    node = polled.sql("select pg_relation_filenode('outbox')")
    assert "has rows: are they published, or to be sent?" in init(polled, code=78)
    assert polled.sql("select count(*) from pg_attribute where attname = 'cdc_tx'") == [(0,)]
    del polled.settings["outbox"]["published"]
    assert "the relay deletes rows once they are published" in init(polled, "--rows", "send", code=78)
    polled.settings["outbox"]["published"] = "mark"
    assert "3 rows are to be sent" in init(polled, "--rows", "send")
    polled.insert(4)
    assert polled.sql("select pg_relation_filenode('outbox')") == node
    ordered = polled.sql("select cdc_seq, (payload->>'seq')::int, cdc_tx = '1' from outbox order by cdc_seq")
    assert ordered == [(-3, 1, True), (-2, 2, True), (-1, 3, True), (1, 4, False)]
    assert row_of_relay(polled).confirmed == "1:1:"
    assert "are prepared already" in init(polled, "--rows", "published")


def test_rows_of_before_that_are_published_are_seen_by_the_confirmed_snapshot(polled: Pipeline) -> None:
    polled.sql(OLD_TABLE)
    polled.insert(1, 2)
    assert "the relay keeps them" in init(polled, "--rows", "published")
    polled.insert(3)
    relay, settings = row_of_relay(polled), load(polled.configure(), environ={})
    with connect(polled.dsn) as connection:
        waiting = relay_facts.waiting(connection, settings, relay)
    assert (waiting.unconfirmed, waiting.unbatched, waiting.strays, waiting.numbers) == (1, 1, 0, 1)
    assert waiting.oldest_seconds is not None


def test_a_partitioned_table_gets_one_sequence_and_a_trigger_on_each_partition(polled: Pipeline) -> None:
    polled.sql(
        OLD_TABLE.replace("primary key ", "").replace("now())", "now(), primary key (id, created_at)) ")
        + "partition by range (created_at)"
    )
    polled.sql("create table old partition of outbox for values from (minvalue) to ('2020-01-01')")
    polled.sql("create table new partition of outbox for values from ('2020-01-01') to (maxvalue)")
    init(polled)
    assert defects(polled) == {}
    polled.insert(1, 2)
    polled.sql(
        "insert into outbox (aggregatetype, aggregateid, type, created_at) values ('note', 'k', 'Noted', '2019-01-01')"
    )
    assert [number for number, _ in stamps(polled)] == [1, 2, 3]
    with pytest.raises(psycopg.errors.RaiseException, match="may move a row"):
        polled.sql("update outbox set created_at = '2019-01-01'")
    polled.sql("alter table outbox detach partition old")
    polled.sql("create table older partition of outbox for values from (minvalue) to ('2019-01-01')")
    found = defects(polled)
    assert "column 'id' of public.older is not unique and NOT NULL" in found.pop("polling_ids")
    assert found == {}
    init(polled)
    assert defects(polled) == {}


def test_a_table_that_inherits_is_stamped_too(polled: Pipeline) -> None:
    init(polled)
    polled.sql("create table later () inherits (outbox)")
    found = defects(polled)
    assert found.keys() == {"polling_columns", "polling_trigger", "polling_ids"}
    assert "table public.later has no trigger" in found["polling_trigger"]
    init(polled)
    assert defects(polled) == {}
    polled.sql("insert into later (aggregatetype, aggregateid, type) values ('note', 'k', 'Noted')")
    assert [number for number, _ in stamps(polled)] == [1]


BAD = {
    OLD_TABLE + "; alter table outbox add cdc_tx text": "column 'cdc_tx' of table public.outbox is text, not xid8",
    OLD_TABLE + "; alter table outbox add cdc_seq bigint generated always as identity": "is an identity column",
    OLD_TABLE + "; create sequence outbox_cdc_seq cache 20": "has CACHE 20",
    OLD_TABLE + "; create table cdc_relay (relay text)": "table public.cdc_relay has no column",
    OLD_TABLE.replace("payload jsonb", "content jsonb"): "column 'payload' is missing",
}


@pytest.mark.parametrize(("statements", "problem"), list(BAD.items()))
def test_what_does_not_fit_gets_one_clear_line_and_nothing_is_changed(
    polled: Pipeline, statements: str, problem: str
) -> None:
    polled.sql(statements)
    before = polled.sql("select count(*) from pg_attribute where attrelid = 'outbox'::regclass")
    error = init(polled, code=1)
    assert problem in error
    assert len(error.splitlines()) == 1
    assert polled.sql("select count(*) from pg_attribute where attrelid = 'outbox'::regclass") == before


def test_a_part_of_a_split_outbox_needs_the_columns_of_the_whole(polled: Pipeline) -> None:
    polled.sql(OLD_TABLE.replace("outbox (", "whole (").replace("primary key ", "") + "partition by hash (aggregateid)")
    polled.sql("create table outbox partition of whole for values with (modulus 1, remainder 0)")
    error = init(polled, code=1)
    assert "is a partition of public.whole" in error
    polled.sql("alter table public.whole add column cdc_tx xid8, add column cdc_seq bigint")
    init(polled)
    polled.sql("insert into whole (aggregatetype, aggregateid, type) values ('note', 'k', 'Noted')")
    assert [number for number, _ in stamps(polled)] == [1]


def test_an_outbox_has_one_relay(polled: Pipeline) -> None:
    init(polled)
    polled.settings["postgres"]["slot"] = "another"
    assert "one relay would delete what the other has not sent" in init(polled, code=1)
    polled.settings["outbox"]["table"] = "second"
    polled.settings["postgres"]["slot"] = polled.sql("select relay from cdc_relay")[0][0]
    assert "give each outbox a relay of its own" in init(polled, code=1)
    assert polled.sql("select to_regclass('second')") == [(None,)]
    polled.settings["postgres"]["slot"] = "another"
    init(polled)
    assert polled.sql("select relay, outbox from cdc_relay where relay = 'another'") == [
        ("another", '"public"."second"')
    ]
    assert defects(polled) == {}
    polled.settings["outbox"]["table"] = "outbox"
    assert "is that of table" in defects(polled)["polling_relay"]


def test_what_is_broken_later_is_named_and_repaired(polled: Pipeline) -> None:
    init(polled)
    for statement, name, part in (
        ("alter table outbox disable trigger zz_cdc_stamp", "polling_trigger", "ENABLE ALWAYS"),
        ("alter table outbox enable trigger zz_cdc_stamp", "polling_trigger", "ENABLE ALWAYS"),
        ("drop trigger zz_cdc_stamp on outbox", "polling_trigger", "may never be published"),
        ("drop index outbox_cdc_tx_idx", "polling_columns", "no index"),
        ("alter table outbox drop constraint outbox_pkey", "polling_ids", "not unique"),
        ("drop table cdc_ticks", "polling_relay", "cdc_ticks does not exist"),
        ("alter table outbox alter cdc_seq set default 0", "polling_columns", "has a default"),
    ):
        polled.sql(statement)
        found = defects(polled)
        assert found.keys() == {name}
        assert part in found[name]
        init(polled)
        assert defects(polled) == {}
    polled.sql("alter sequence outbox_cdc_seq cache 20")
    assert "CACHE 20" in defects(polled)["polling_sequence"]
    polled.sql("alter sequence outbox_cdc_seq cache 1")
    polled.sql("create function f() returns trigger language plpgsql as 'begin return new; end'")
    polled.sql("create trigger zzz before insert on outbox for each row execute function f()")
    assert "trigger zzz of table public.outbox runs after zz_cdc_stamp" in defects(polled)["polling_trigger"]


def test_strays_are_adopted_in_their_order(polled: Pipeline) -> None:
    init(polled)
    polled.insert(1)
    with polled.connect() as connection:
        connection.execute("alter table outbox disable trigger zz_cdc_stamp")
        for seq in (2, 3):
            connection.execute(
                "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', 'Noted', %s)",
                [json.dumps({"seq": seq})],
            )
        connection.execute("alter table outbox enable always trigger zz_cdc_stamp")
    assert [number for number, _ in stamps(polled)] == [None, None, 1]
    assert "adopted 2 strays" in init(polled, "--adopt")
    found = polled.sql("select cdc_seq, (payload->>'seq')::int, cdc_tx is not null from outbox order by 1")
    assert found == [(1, 1, True), (2, 2, True), (3, 3, True)]


def test_rows_that_should_be_gone_are_strays_where_rows_are_deleted(polled: Pipeline) -> None:
    polled.settings["outbox"]["published"] = "delete"
    init(polled)
    polled.insert(1)
    polled.sql(
        "update cdc_relay set confirmed_snapshot = pg_current_snapshot(), cleared_snapshot = pg_current_snapshot()"
    )
    polled.insert(2)
    settings = load(polled.configure(), environ={})
    with connect(polled.dsn) as connection:
        assert relay_facts.waiting(connection, settings, row_of_relay(polled)).strays == 1
    assert "adopted 1 strays" in init(polled, "--adopt")
    with connect(polled.dsn) as connection:
        waiting = relay_facts.waiting(connection, settings, row_of_relay(polled))
    assert (waiting.strays, waiting.unconfirmed) == (0, 2)
    assert polled.sql("select cdc_seq from outbox order by payload->>'seq'") == [(3,), (2,)]


def test_after_a_restored_dump_only_what_was_not_confirmed_is_to_be_sent(polled: Pipeline) -> None:
    init(polled)
    polled.insert(1, 2)
    polled.insert(3)
    far = (1 << 40) + 1000  # transactions of another server
    with polled.connect() as connection:
        connection.execute("alter table outbox disable trigger zz_cdc_stamp")
        connection.execute("update outbox set cdc_tx = (%s + cdc_seq)::text::xid8", [far])
        connection.execute("alter table outbox enable always trigger zz_cdc_stamp")
        # Confirmed is the first row, and of the second batch all up to number 2.
        connection.execute(
            "update cdc_relay set epoch = 3, confirmed_snapshot = %s, partly_snapshot = %s, partly_until = 2",
            [f"{far + 2}:{far + 2}:", f"{far + 4}:{far + 4}:"],
        )
        connection.execute("insert into cdc_ticks select relay, 5, %s, %s from cdc_relay", [f"{far}:{far}:", str(far)])
    polled.insert(4)  # here, since the restore
    old = row_of_relay(polled)
    done = init(polled, "--reset")
    assert "2 rows are to be sent, 2 published rows are settled" in done
    new = row_of_relay(polled)
    assert new.id != old.id
    assert (new.epoch, new.ticks, new.partly, new.cleared) == (0, 0, None, "1:1:")
    assert unsent(polled) == [(3,), (4,)]


def test_reset_since_a_time_sends_rows_since_then(polled: Pipeline) -> None:
    init(polled)
    polled.insert(1, 2)
    polled.sql("update outbox set created_at = '2020-01-01' where payload->>'seq' = '1'")
    polled.sql("update cdc_relay set confirmed_snapshot = pg_current_snapshot()")
    assert "1 rows are to be sent" in init(polled, "--reset", "--since", "2021-01-01")
    assert unsent(polled) == [(2,)]


def test_a_move_from_a_slot_notes_how_far_the_slot_publishes(bare_pipeline: Pipeline) -> None:
    pipeline = prepare(bare_pipeline)
    pipeline.insert(1)
    producer = Producer({"bootstrap.servers": pipeline.kafka})
    producer.produce(pipeline.topic, b"before", partition=1)
    producer.flush()
    assert "--rows" in init(pipeline, "--rows", "send", code=1)
    assert "the relay deletes rows" in init(pipeline, code=78)
    pipeline.settings["outbox"] = {"published": "mark"}
    printed = init(pipeline, "--print")
    assert "DROP DEFAULT" in printed
    done = init(pipeline)
    assert "stop the publisher then" in done
    relay = row_of_relay(pipeline)
    assert relay.handover is not None
    assert pipeline.sql(
        "select %s::pg_lsn > confirmed_flush_lsn from pg_replication_slots where slot_name = %s",
        relay.handover,
        pipeline.slot,
    ) == [(True,)]
    assert unsent(pipeline) == []
    record = positions.remembered(load(pipeline.configure(), environ={}), f"{relay.id}/{pipeline.slot}").record
    assert isinstance(record, SlotRecord)
    assert record.since == {pipeline.topic: {0: 0, 1: 1, 2: 0}}
    assert "are prepared already" in init(pipeline)
    # The numbers of the trigger serve a recovery of the slot as those of the default did.
    pipeline.insert(2)
    assert pipeline.sql("select count(distinct cdc_seq) from outbox") == [(2,)]


class Killed(Exception):
    """Ends a run where it reports something."""


def dies(message: str) -> Callable[[str], None]:
    """Return what a run reports to, which does not survive one message."""

    def say(text: str) -> None:
        if message in text:
            raise Killed

    return say


def killed(pipeline: Pipeline, message: str, **options: Any) -> None:
    """Run `outbox init --polling` until it reports a message."""
    with connect(pipeline.dsn) as connection, pytest.raises(Killed):
        Setup(connection, load(pipeline.configure(), environ={}), Options(**options), dies(message)).run()


def test_a_move_from_a_slot_that_was_killed_at_any_step_is_completed(bare_pipeline: Pipeline) -> None:
    pipeline = prepare(bare_pipeline)
    pipeline.insert(1)
    pipeline.settings["outbox"] = {"published": "mark"}
    killed(pipeline, "added columns")
    pipeline.insert(2)
    killed(pipeline, "created relay")
    relay = row_of_relay(pipeline)
    assert relay.handover is not None, "the relay would not wait for the slot"
    killed(pipeline, "noted the ends")
    assert "are prepared already" in init(pipeline)
    assert row_of_relay(pipeline) == relay
    assert unsent(pipeline) == []
    assert positions.remembered(load(pipeline.configure(), environ={}), f"{relay.id}/{pipeline.slot}").record


def test_rows_of_before_keep_their_order_when_init_was_killed(polled: Pipeline) -> None:
    polled.sql(OLD_TABLE)
    polled.sql("alter table outbox add column place bigserial")
    for seq in (3, 1, 2):
        polled.sql(
            "insert into outbox (aggregatetype, aggregateid, type, payload, place)"
            " values ('note', 'k', 'Noted', jsonb_build_object('seq', %s::int), %s)",
            seq,
            seq,
        )
    killed(polled, "added columns", rows="send")
    assert "in the order of their sequence" in init(polled, "--rows", "send")
    assert unsent(polled) == [(1,), (2,), (3,)]


def test_a_move_to_a_slot_that_was_killed_at_any_step_is_completed(
    bare_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = bare_pipeline
    pipeline.settings["postgres"]["source"] = "polling"
    prepare(pipeline)
    relay = row_of_relay(pipeline)
    pipeline.settings["postgres"]["source"] = "slot"
    assert pipeline.run("outbox", "init").returncode == 0
    settings = load(pipeline.configure(), environ={})

    def moves(message: str = "nothing") -> None:
        with connect(pipeline.dsn) as connection:
            Takeover(connection, settings, dies(message)).run(failover=False)

    def record() -> SlotRecord | None:
        with connect(pipeline.dsn) as connection:
            return positions.remembered(settings, f"{slots.system_identifier(connection)}/{pipeline.slot}").record

    with monkeypatch.context() as patched:
        patched.setattr(positions, "write", lambda *_: dies("")(""))
        with pytest.raises(Killed):
            moves()
    with pytest.raises(PostgresError, match="an earlier run was interrupted"):
        moves()
    assert pipeline.run("slot", "drop", "--yes").returncode == 0
    for message in ("created slot", "waiting until", "deleted relay"):
        with pytest.raises(Killed):
            moves(message)
        begun = record()
        assert begun
        assert begun.foreign
        assert begun.foreign.until == 2**64 - 1
    moves()
    done = record()
    assert done
    assert done.foreign
    assert done.foreign.until < 2**64 - 1
    moves()
    assert record() == done
    assert pipeline.sql("select from cdc_relay where id = %s", relay.id) == []


@pytest.mark.parametrize(
    "arguments",
    [("slot", "create"), ("slot", "list"), ("slot", "drop", "--yes"), ("recover",), ("takeover", "compare")],
)
def test_commands_that_need_a_slot_say_so_in_one_line(polled: Pipeline, arguments: tuple[str, ...]) -> None:
    polled.settings["kafka"] = {"bootstrap.servers": polled.kafka}
    done = polled.run(*arguments)
    assert done.returncode == 78
    assert "needs a replication slot" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_options_of_polling_are_refused_without_it(polled: Pipeline) -> None:
    for options in (("--adopt",), ("--rows", "send"), ("--polling", "--since", "1d"), ("--polling", "--order")):
        assert polled.run("outbox", "init", *options).returncode == 2


def test_a_slot_beside_a_relay_is_refused(polled: Pipeline) -> None:
    init(polled)
    polled.settings["postgres"]["source"] = "slot"
    assert polled.run("outbox", "init").returncode == 0
    done = polled.run("slot", "create")
    assert (done.returncode, "slot create --from-polling" in done.stderr) == (1, True)
