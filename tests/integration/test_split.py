"""`outbox init --split`: an outbox in parts, with a publisher for each, and the steps for a table that is in use."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import ROOT, documents
from tests.integration.checking import check, fixed, reported, shell
from tests.pipeline import Pipeline, make_pipeline, prepare
from tests.servers import Servers, a_database, a_folder, a_postgres
from tests.splitting import Unit, blocks, unit
from tests.versions import OLD_POSTGRES

PAGE = [
    block for block in documents.blocks(ROOT / "docs" / "split.md") if block.test == "tests/integration/test_split.py"
]


@pytest.fixture(scope="module", params=[None, *OLD_POSTGRES], ids=lambda path: path.parent.name if path else "newest")
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of its own: the names of slots are those of parts, and common to all databases."""
    with a_folder() as home, a_postgres(home, request.param) as made:
        yield made.dsn


@pytest.fixture
def bare(server: str, servers: Servers, topic_prefix: str, tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline in an empty database of that server."""
    with a_database(server) as dsn:
        pipeline = make_pipeline(dsn, servers.kafka, topic_prefix, tmp_path)
        yield pipeline
        pipeline.close()


@contextlib.contextmanager
def parts(pipeline: Pipeline, number: int, folder: str = "units") -> Iterator[list[Unit]]:
    """The publishers of an outbox that is made in parts; their slots are dropped with the database."""
    done = pipeline.run("outbox", "init", "--split", str(number), "--write", str(pipeline.folder / folder))
    assert done.returncode == 0, done.stderr
    units = [unit(pipeline, file) for file in sorted((pipeline.folder / folder).glob("*.toml"))]
    try:
        for each in units:
            created = each.run("slot", "create")
            assert created.returncode == 0, created.stderr
        yield units
    finally:
        for each in units:
            each.close()


def refused(pipeline: Pipeline, *arguments: str) -> str:
    done = pipeline.run("outbox", "init", *arguments)
    assert done.returncode in (1, 2, 78), done.stdout
    return done.stderr


def test_each_part_has_a_publisher_and_rows_of_any_key_are_published_once(bare: Pipeline) -> None:
    pipeline = bare
    pipeline.create_topic(pipeline.topic)
    with parts(pipeline, 3) as units:
        again = pipeline.run("outbox", "init", "--split", "3", "--write", str(pipeline.folder / "units"))
        assert (again.returncode, "exist already" in again.stdout, again.stderr.count("exists already")) == (0, True, 3)
        for each in units:
            each.start().streams()
        for key in range(30):
            pipeline.insert(1, 2, 3, key=f"k{key}")
        for each in units:
            each.settles()
            found = json.loads(each.run("audit", "--json").stdout)
            assert (found["findings"], found["counts"]["rows"] > 0) == ([], True)
            assert check(each)["outbox_moves"].status == "pass"
        pipeline.judge()
        assert len({record.position.split("-")[0] for record in pipeline.records()}) == 3
        purged = units[0].run("outbox", "purge", "--grace", "0s", "--accept-unknown")
        assert purged.returncode == 0, purged.stderr
        assert pipeline.sql("select count(*)::int from outbox_3_0") == [(0,)]


@pytest.mark.parametrize("kind", ["bigint", "uuid", "text"])
def test_the_key_may_be_of_any_type_and_null(bare: Pipeline, kind: str) -> None:
    pipeline = bare
    pipeline.create_topic(pipeline.topic)
    statements = pipeline.run("outbox", "init", "--split", "2", "--print").stdout
    pipeline.sql(statements.replace('"aggregateid" varchar(255) NOT NULL', f'"aggregateid" {kind}'))
    value = {"bigint": "s", "uuid": "gen_random_uuid()", "text": "s::text"}[kind]
    with parts(pipeline, 2) as units:
        for each in units:
            each.start().streams()
        pipeline.sql(
            "insert into outbox (aggregatetype, aggregateid, type, payload) select 'note', case when s % 5 > 0 then"
            f" {value} end, 'Noted', jsonb_build_object('seq', s) from generate_series(1, 40) s"
        )
        for each in units:
            each.settles()
        assert sorted(record.value["seq"] for record in pipeline.records()) == list(range(1, 41))
        with pytest.raises(psycopg.errors.RaiseException, match="would publish its event again"):
            pipeline.sql("update outbox set aggregateid = null where payload ->> 'seq' = '1'")


def test_rows_of_a_part_stay_also_if_another_trigger_changes_the_key(bare: Pipeline) -> None:
    pipeline = bare
    with parts(pipeline, 2) as units:
        pipeline.insert(1)
        pipeline.sql(
            "create function moves() returns trigger language plpgsql as $$ begin"
            " new.aggregateid := new.aggregateid || 'x'; return new; end $$"
        )
        pipeline.sql("create trigger moves before update on outbox for each row execute function moves()")
        with pytest.raises(psycopg.errors.RaiseException, match="would publish its event again"):
            pipeline.sql("update outbox set type = 'Noted'")
        with pytest.raises(psycopg.errors.RaiseException):
            pipeline.sql("set session_replication_role = replica; update outbox set aggregateid = 'elsewhere'")
        part = units[0]
        pipeline.sql("alter trigger moves on outbox rename to zzz_moves")
        reported(part, "outbox_moves", "warn", "trigger zzz_moves of public.outbox_2_0 runs after zz_outbox_stays")
        pipeline.sql("drop trigger zzz_moves on outbox")
        assert check(part)["outbox_moves"].status == "pass"
        pipeline.sql("alter table outbox enable trigger zz_outbox_stays")
        fixed(part, "outbox_moves", "warn", "row of public.outbox to another partition", "ENABLE ALWAYS")
        pipeline.sql("drop trigger zz_outbox_stays on outbox")
        fixed(part, "outbox_moves", "warn", "outbox_2_0 has no trigger zz_outbox_stays")
        pipeline.sql("drop trigger zz_outbox_stays on outbox")
        pipeline.sql(
            "create trigger zz_outbox_stays before update of aggregateid on outbox"
            " for each row execute function moves()"
        )
        pipeline.sql("alter table outbox enable always trigger zz_outbox_stays")
        fixed(part, "outbox_moves", "warn", "restricted to columns that an UPDATE names")
        pipeline.sql("alter table outbox disable trigger zz_outbox_stays")
        fixed(part, "outbox_moves", "warn", "has no trigger zz_outbox_stays")


def test_the_page_makes_parts_one_of_them_by_time_and_then_prints_steps(bare: Pipeline) -> None:
    pipeline = bare
    first, by_time, steps = PAGE
    pipeline.create_topic(pipeline.topic)
    pipeline.configure()
    init, *creates = first.text.splitlines()
    shell(pipeline, init, pipeline.dsn)
    pipeline.sql(by_time.text)
    for create in creates:
        shell(pipeline, create, pipeline.dsn)
    units = [unit(pipeline, file) for file in sorted((pipeline.folder / "units").glob("*.toml"))]
    try:
        timed = units[1]
        line = fixed(timed, "outbox_moves", "warn", "does not compare created_at")
        assert 'NEW."created_at"' in line.fix[1]
        for each in units:
            each.start().streams()
        for key in range(20):
            pipeline.insert(1, 2, key=f"k{key}")
        for each in units:
            each.settles()
            assert check(each)["outbox_moves"].status == "pass"
            assert json.loads(each.run("audit", "--json").stdout)["findings"] == []
        pipeline.judge()
        assert pipeline.sql("select count(*)::int > 0 from outbox_2_1_2026") == [(True,)]
        with pytest.raises(psycopg.errors.RaiseException):
            pipeline.sql("update outbox set created_at = '2030-01-01'")
    finally:
        for each in units:
            each.close()
    arguments = steps.text.split("#")[0].split()[1:]
    printed = pipeline.run(*arguments[:-1], str(pipeline.folder / arguments[-1]))
    assert (printed.returncode, len(blocks(printed.stdout))) == (1, 2)
    assert "'outbox_2_0', 'outbox_2_1'" in printed.stdout
    assert sorted(file.stem for file in (pipeline.folder / "new-units").iterdir()) == [
        f"outbox_4_{part}" for part in range(4)
    ]


def test_the_steps_keep_what_belongs_to_the_table(bare: Pipeline) -> None:
    pipeline = prepare(bare, topic=False)
    pipeline.sql("create role writer_of_split")
    try:
        for statement in (
            "alter table outbox add column number bigint generated always as identity",
            "alter table outbox add column serial_number bigserial",
            "grant insert on outbox to writer_of_split",
            "create view events with (security_barrier) as select * from outbox where true",
            "create function noted() returns trigger language plpgsql as"
            " $$ begin new.type := 'Noted'; return new; end $$",
            "create trigger noted before insert on outbox for each row execute function noted()",
            "create table notes (event uuid references outbox (id))",
            "create table child () inherits (outbox)",
            "create index by_type on outbox (type)",
            "insert into outbox (aggregatetype, aggregateid, type) values ('note', 'k', 'any')",
        ):
            pipeline.sql(statement)
        printed = pipeline.run("outbox", "init", "--split", "2", "--print")
        assert (printed.returncode, printed.stdout.count("slot create")) == (0, 2), printed.stderr
        for note in ("index public.by_type", "public.child inherits", "ON CONFLICT (id)", 'renamed_to = "outbox_old"'):
            assert note in printed.stdout
        for block in blocks(printed.stdout):
            with psycopg.connect(pipeline.dsn) as connection:
                connection.execute(block.encode())
        for table in ("events", "outbox"):
            pipeline.sql(f"insert into {table} (aggregatetype, aggregateid, type) values ('note', 'k', 'any')")
        assert pipeline.sql("select number, serial_number, cdc_seq, type from outbox order by 1") == [
            (3, 2, 2, "Noted"),
            (4, 3, 3, "Noted"),
        ]
        for table in ("outbox_old", "child"):
            with pytest.raises(psycopg.errors.RaiseException, match=r"was replaced by public\.outbox"):
                pipeline.sql(f"insert into {table} (aggregatetype, aggregateid, type) values ('note', 'k', 'any')")
        assert pipeline.sql("select has_table_privilege('writer_of_split', 'outbox', 'insert')") == [(True,)]
        assert pipeline.sql("select reloptions from pg_class where relname = 'events'") == [
            (["security_barrier=true"],)
        ]
        assert pipeline.sql("select count(*)::int from pg_constraint where contype = 'f'") == [(0,)]
        pipeline.sql("drop table child")
        pipeline.sql("drop table outbox_old")
        found = pipeline.run("outbox", "init", "--split", "2")
        assert (found.returncode, "exist already" in found.stdout) == (0, True), found.stdout
    finally:
        pipeline.sql("drop owned by writer_of_split")
        pipeline.sql("drop role writer_of_split")


def test_new_files_are_not_written_beside_those_of_publishers_that_read_the_table(bare: Pipeline) -> None:
    with parts(bare, 2):
        message = refused(bare, "--split", "4", "--write", str(bare.folder / "units"))
    assert "new ones must not start before it is done" in message
    assert sorted(file.name for file in (bare.folder / "units").glob("*.toml")) == [
        "outbox_2_0.toml",
        "outbox_2_1.toml",
    ]


class Killed(BaseException):
    """Ends a command where it is raised, as kill -9 does: nothing catches it."""


def test_a_command_that_is_killed_at_any_statement_or_file_is_run_again(
    bare: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, execute, fdopen, rename = bare.folder / "units", psycopg.Connection.execute, os.fdopen, Path.rename
    arguments = ("outbox", "init", "--split", "2", "--write", str(folder))

    def killed(owner: object, name: str, way: Callable[..., object]) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, way)
            with pytest.raises(Killed):
                bare.run(*arguments)

    for last in bare.run("outbox", "init", "--split", "2", "--print").stdout.rstrip().split("\n\n"):

        def statement(self: Any, query: Any, *more: Any, last: bytes = last.encode()) -> object:
            done = execute(self, query, *more)
            if query == last:
                raise Killed
            return done

        killed(psycopg.Connection, "execute", statement)
        assert bare.sql("select to_regclass('outbox')::text") == [(None,)]

    def half(*given: Any) -> object:
        with fdopen(*given) as file:
            file.write("[post")
        raise Killed

    def before(*_: object) -> object:
        raise Killed

    def after(self: Path, target: Path) -> object:
        rename(self, target)
        raise Killed

    whole = set[str]()
    for part in range(2):
        killed(os, "fdopen", half)
        killed(Path, "rename", before)
        assert {file.stem for file in folder.glob("*.toml")} == whole
        killed(Path, "rename", after)
        whole.add(f"outbox_2_{part}")
    again = bare.run(*arguments)
    assert (again.returncode, again.stderr.count("exists already")) == (0, 2), again.stderr
    assert "slot create --backfill" in again.stdout  # rows may be there by now
    assert sorted(file.name for file in folder.iterdir()) == ["outbox_2_0.toml", "outbox_2_1.toml"]
    for file in folder.iterdir():
        assert unit(bare, file).run("slot", "create").returncode == 0
    assert "slot create" not in bare.run(*arguments).stdout


def test_bad_input_gets_one_clear_message(bare: Pipeline) -> None:
    assert "--write needs --split" in refused(bare, "--write", "units")
    assert "--split excludes --order and --messages" in refused(bare, "--split", "2", "--order")
    bare.settings["outbox"] = {"messages": "events"}
    assert "--split and [outbox] messages exclude each other" in refused(bare, "--split", "2")
    bare.settings["outbox"] = {"table": "public." + "x" * 60}
    assert "is longer than 63 bytes" in refused(bare, "--split", "2")
    bare.settings["outbox"] = {"renamed_to": "public.outbox"}
    assert "[outbox]: renamed_to: table has the name 'public.outbox' already" in refused(bare)
    bare.settings["outbox"] = {}
    (bare.folder / "units").mkdir()
    (bare.folder / "units" / "outbox_2_1.toml").write_text("[postgres]\n")
    message = refused(bare, "--split", "2", "--write", str(bare.folder / "units"))
    assert "outbox_2_1.toml exists, with other settings" in message


def test_a_renamed_table_is_found_by_its_publication_and_not_by_its_name(bare: Pipeline) -> None:
    pipeline = prepare(bare)
    running = pipeline.start().streams()
    pipeline.insert(1)
    pipeline.settles()
    made = pipeline.run("outbox", "init", "--split", "2", "--print").stdout
    create, swap = blocks(made)
    for block in (create, swap):
        with psycopg.connect(pipeline.dsn) as connection:
            connection.execute(block.encode())
    assert running.wait() == 1  # it does not know the other name
    assert pipeline.run_process("start").returncode == 1
    pipeline.settings["outbox"] = {"renamed_to": "outbox_old"}
    running = pipeline.start().streams()
    pipeline.settles()
    assert check(pipeline)["publication"].status == "pass"
    assert "public.outbox_old" in check(pipeline)["outbox_table"].found
    found = json.loads(pipeline.run("audit", "--json").stdout)
    assert (found["findings"], found["counts"]["rows"]) == ([], 1)
    assert pipeline.run("status", "--json").returncode == 0
    # A wrong fix, or a publication for all tables, has both: rows of the new table belong to its own publishers.
    pipeline.sql("alter publication cdc_publisher add table outbox")
    pipeline.insert(2)
    pipeline.settles()
    assert running.stop() == 0
    pipeline.start().streams()
    pipeline.insert(3)
    pipeline.settles()
    assert [record.value["seq"] for record in pipeline.records()] == [1]
