"""An outbox in parts: the names of parts, the trigger that keeps rows in them, the steps, and who reads which table."""

import pytest

from cdc.cli.main import Invocation
from cdc.cli.split import text
from cdc.config.settings import Outbox, Settings
from cdc.errors import ConfigError
from cdc.postgres import defects, split
from cdc.postgres.moves import Trigger, lacking, later
from cdc.postgres.renamed import Candidate, choose
from cdc.postgres.split import Steps
from cdc.replication.publication import differences

OUTBOX, OLD = ("public", "outbox"), ("public", "outbox_old")
STAYS = 'CREATE TRIGGER zz_outbox_stays ... WHEN ((ROW(old.key, old."Day") IS DISTINCT FROM ROW(new.key, new."Day")))'


def trigger(table: str = "outbox_2_0", **changes: object) -> Trigger:
    made = Trigger(table, defects.STAYS, "A", "", STAYS, True)
    return made._replace(**changes)  # type: ignore[arg-type]


def settings(**outbox: object) -> Settings:
    return Settings.model_validate({"outbox": outbox})


def test_a_trigger_on_every_table_that_compares_every_column_keeps_rows_in_their_parts() -> None:
    assert lacking([trigger(), trigger("outbox_2_1")], ["key", "Day"]) == ""
    assert lacking([trigger(conditional=False)], ["other"]) == ""


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([trigger(), trigger("outbox_2_1", name=None)], "table outbox_2_1 has no trigger"),
        ([trigger(name="another")], "has no trigger zz_outbox_stays"),
        ([trigger(enabled="O")], "does not fire for a subscription"),
        ([trigger(columns="3")], "restricted to columns that an UPDATE names"),
        ([trigger(definition=STAYS.replace("new.key", "new.key2"))], "does not compare key"),
        ([trigger(definition=STAYS.replace('new."Day"', "new.day"))], "does not compare Day"),
    ],
)
def test_a_trigger_that_lets_some_rows_move_is_reported(found: list[Trigger], problem: str) -> None:
    assert problem in lacking(found, ["key", "Day"])


def test_a_trigger_that_runs_after_the_one_that_keeps_rows_is_reported() -> None:
    assert later([trigger(name="zz_outbox_r"), trigger()]) is None
    assert later([trigger(), trigger(name="zzz")]) == "zzz"


def test_the_trigger_names_no_columns_and_fires_for_subscriptions_too() -> None:
    _, made, always = defects.stay(OUTBOX, ["key"])
    assert 'BEFORE UPDATE ON "public"."outbox" FOR EACH ROW WHEN (ROW(OLD."key") IS DISTINCT FROM' in made
    assert '"public"."outbox"' in always
    assert "ENABLE ALWAYS TRIGGER zz_outbox_stays" in always


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ([], OUTBOX),
        ([Candidate(OUTBOX, True)], OUTBOX),
        ([Candidate(OUTBOX, True), Candidate(OLD, False)], OUTBOX),  # that of an earlier split, before the swap
        ([Candidate(OUTBOX, False), Candidate(OLD, True)], OLD),
        ([Candidate(OUTBOX, True), Candidate(OLD, True)], OLD),  # by a wrong fix
        ([Candidate(OUTBOX, False), Candidate(OLD, False)], OLD),  # a publication for all tables
    ],
)
def test_the_publisher_of_a_renamed_table_never_takes_the_new_one(
    found: list[Candidate], name: tuple[str, str]
) -> None:
    assert choose(found, OUTBOX, OLD) == choose(found[::-1], OUTBOX, OLD) == name


def test_a_table_is_the_same_under_another_name_as_long_as_its_oid_is() -> None:
    before = {"table": "public.outbox", "table oid": "7", "publication": "p", "publication oid": "8"}
    assert differences({**before, "table": "public.outbox_old"}, before) == []
    assert differences({**before, "table": "public.outbox_old", "table oid": "9"}, before) == [
        "table is public.outbox_old, and was public.outbox"
    ]
    assert differences({**before, "table": "public.x", "table oid": "none"}, {**before, "table oid": "none"}) == [
        "table is public.x, and was public.outbox"
    ]


def test_the_new_name_is_in_the_schema_of_the_table() -> None:
    assert settings(table="shop.outbox", renamed_to="outbox_old").outbox.new_name == ("shop", "outbox_old")
    assert settings(table="shop.outbox", renamed_to="archive.outbox").outbox.new_name == ("archive", "outbox")
    assert Outbox().new_name is None


@pytest.mark.parametrize(
    ("outbox", "problem"),
    [
        ({"renamed_to": "outbox"}, "table has the name 'outbox' already"),
        ({"table": "", "messages": "m", "renamed_to": "old"}, "there is no table to rename"),
        ({"renamed_to": "a.b.c"}, "is not schema.table"),
    ],
)
def test_a_new_name_that_cannot_be_is_refused(outbox: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        settings(**outbox)


def test_parts_have_tables_slots_and_publications_of_one_name() -> None:
    found = split.parts(settings(table="shop.Order Box", renamed_to="old"), 2)
    assert [(name, part.postgres.slot, part.postgres.publication) for name, part in found.items()] == [
        (f"Order Box_2_{number}", f"order_box_2_{number}", f"Order Box_2_{number}") for number in range(2)
    ]
    assert [(part.outbox.qualified_name, part.outbox.new_name) for part in found.values()] == [
        (("shop", f"Order Box_2_{number}"), None) for number in range(2)
    ]


@pytest.mark.parametrize(
    ("outbox", "problem"), [({"messages": "m"}, "exclude each other"), ({"table": "x" * 60}, "longer than 63 bytes")]
)
def test_what_cannot_be_split_is_refused(outbox: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        split.parts(settings(**outbox), 2)


def test_a_new_outbox_has_its_primary_keys_in_its_parts() -> None:
    statements = split.create(settings(), 2, ("shop_app",))
    table = next(statement for statement in statements if statement.startswith("CREATE TABLE"))
    assert ("PRIMARY KEY" in table, table.endswith('PARTITION BY HASH ("aggregateid");')) == (False, True)
    parts = [statement for statement in statements if "PARTITION OF" in statement]
    assert [
        statement.endswith(f'(PRIMARY KEY ("id")) FOR VALUES WITH (MODULUS 2, REMAINDER {number});')
        for number, statement in enumerate(parts)
    ] == [True, True]
    assert sum(statement.startswith("CREATE PUBLICATION") for statement in statements) == 2
    assert statements[-1] == 'GRANT INSERT ON TABLE "public"."outbox" TO "shop_app";'


def test_every_insert_into_the_old_tables_is_refused_before_any_other_trigger_runs() -> None:
    function, *made = split.refuse(OLD, OUTBOX, [OLD, ("public", "child")])
    assert "RAISE EXCEPTION 'public.outbox_old was replaced by public.outbox" in function
    for create, always, table in zip(made[::2], made[1::2], ("outbox_old", "child"), strict=True):
        assert create.startswith(f'CREATE TRIGGER "00_outbox_refuses" BEFORE INSERT ON "public"."{table}" FOR EACH ROW')
        assert always == defects.always(("public", table), '"00_outbox_refuses"')


def test_the_steps_create_publications_before_slots_and_start_new_publishers_after_the_old_ones() -> None:
    steps = Steps(
        ["CREATE PUBLICATION p;"],
        ["RENAME;"],
        ["outbox_2_0"],
        ["outbox_2_0"],
        ["old_slot"],
        ["old_pub"],
        failover=True,
        single=True,
        old=OLD,
        notes=[],
    )
    printed = text(Invocation(None, "text", False, (), None), steps, "public.outbox", None)
    in_order = [
        "CREATE PUBLICATION p;\nCOMMIT;",
        "$ cdc-publisher --config FOLDER/outbox_2_0.toml slot create --failover",
        'renamed_to = "outbox_old"',
        "RENAME;\nCOMMIT;",
        "pg_current_wal_insert_lsn()",
        "slot_name IN ('old_slot') AND confirmed_flush_lsn < ",
        "Start the publishers of the new parts: outbox_2_0.",
        "$ cdc-publisher slot drop old_slot --yes",
        'DROP PUBLICATION IF EXISTS "old_pub";',
        'DROP TABLE "public"."outbox_old";',
    ]
    assert [printed.index(one) for one in in_order] == sorted(printed.index(one) for one in in_order)
