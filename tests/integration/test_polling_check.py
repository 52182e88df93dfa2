"""The lines of `check` for polling: each problem is produced on a real server, and its printed fix applied."""

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.integration.checking import check, fixed, no_role, role
from tests.pipeline import Pipeline
from tests.pooler import POOLERS, pooler
from tests.produced import produces


@pytest.fixture
def polled(bare_pipeline: Pipeline) -> Pipeline:
    """A pipeline whose outbox is prepared for polling."""
    bare_pipeline.settings["postgres"]["source"] = "polling"
    done = bare_pipeline.run("outbox", "init", "--polling")
    assert done.returncode == 0, done.stderr
    bare_pipeline.create_topic(bare_pipeline.topic)
    bare_pipeline.insert(1)
    return bare_pipeline


def test_a_prepared_outbox_passes_and_no_line_asks_for_a_slot(polled: Pipeline) -> None:
    found = check(polled)
    assert {name: line.found for name, line in found.items() if line.status == "fail"} == {}
    assert not {"replication_slot", "publication", "wal_level", "slot_identity", "recovery"} & found.keys()
    assert "1 numbers were given out, 0 rows were in confirmed batches; 0 were" in found["polling_numbers"].found
    assert found["polling_connection"].status == "pass"


@produces(
    "polling_columns:fail",
    "polling_sequence:fail",
    "polling_trigger:fail",
    "polling_ids:fail",
    "polling_relay:fail",
    "polling_relays:fail",
    "polling_strays:warn",
)
def test_what_is_wrong_with_the_table_is_named_with_its_fix(polled: Pipeline) -> None:
    polled.sql("drop index outbox_cdc_seq_idx")
    fixed(polled, "polling_columns", "fail", "no index")
    polled.sql("alter sequence outbox_cdc_seq cache 7")
    fixed(polled, "polling_sequence", "fail", "CACHE 7")
    polled.sql("alter table outbox enable trigger zz_cdc_stamp")
    fixed(polled, "polling_trigger", "fail", "ENABLE ALWAYS")
    polled.sql("alter table outbox drop constraint outbox_pkey, alter id drop not null")
    fixed(polled, "polling_ids", "fail", "not unique and NOT NULL")
    polled.sql("create table kept as select * from cdc_relay")
    polled.sql("update cdc_relay set outbox = 'x'")
    assert "is that of table x" in check(polled)["polling_relay"].found
    polled.sql("update cdc_relay set outbox = kept.outbox from kept")
    polled.sql(
        "insert into cdc_relay (relay, id, outbox, confirmed_snapshot, cleared_snapshot)"
        " select 'two', gen_random_uuid(), outbox, confirmed_snapshot, cleared_snapshot from cdc_relay"
    )
    fixed(polled, "polling_relays", "fail", "further relays (two)")
    with polled.connect() as connection:
        connection.execute("set cdc.numbering = 'on'")
        connection.execute("update outbox set cdc_seq = null")
    fixed(polled, "polling_strays", "warn", "1 row will be in no batch")


@produces("polling_rights:fail", "polling_handover:warn")
def test_missing_rights_and_a_slot_that_still_publishes_are_reported(polled: Pipeline) -> None:
    polled.sql("update cdc_relay set handover = pg_current_wal_insert_lsn()")
    assert "publishes until it has confirmed" in check(polled)["polling_handover"].found
    polled.sql("update cdc_relay set handover = null")
    name = role(polled, "login")
    polled.sql(f'grant select on cdc_relay, outbox to "{name}"')
    fixed(polled, "polling_rights", "fail", "DELETE on public.outbox", "UPDATE (cdc_seq)")
    no_role(polled, name)


@produces("polling_connection:warn")
@pytest.mark.parametrize("kind", POOLERS[:1])
def test_a_pooler_works_with_limits(polled: Pipeline, kind: str) -> None:
    upstream = int(str(conninfo_to_dict(polled.dsn)["port"]))
    with pooler(kind, upstream, polled.folder) as port:
        polled.settings["postgres"]["dsn"] = make_conninfo(polled.dsn, host="127.0.0.1", port=port, sslmode="disable")
        line = check(polled)["polling_connection"]
    assert (line.status, "a pooler, which works" in line.found) == ("warn", True)
