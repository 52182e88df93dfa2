"""What a server must be like, and the statements that make it so."""

import pytest

from cdc.postgres import defects

STREAM = "cdc-publisher stream"


@pytest.mark.parametrize(
    ("setting", "standbys", "value"),
    [
        ("*", [], ""),
        ("*", ["s1"], 'FIRST 1 ("s1")'),
        ("s1, *", ["s1", "s2"], 'FIRST 1 ("s1", "s2")'),
        ("FIRST 2 (s1, *)", ["s2", "s3"], 'FIRST 2 ("s1", "s2", "s3")'),
        ("any 2 (*)", ["s1"], 'any 1 ("s1")'),
        ("2 (*)", ["s1", "s2"], 'FIRST 2 ("s1", "s2")'),
        ('s1, "CDC-Publisher Stream"', ["s2"], 'FIRST 1 ("s1")'),
        ('"cdc-publisher stream"', ["s1"], ""),
        ('"*"', ["it's"], "FIRST 1 (\"it''s\")"),
    ],
)
def test_case_c8_the_fix_names_the_standbys_without_the_publisher(
    setting: str, standbys: list[str], value: str
) -> None:
    defect = defects.synchronous(setting, STREAM, standbys)
    assert defect
    assert defect.fix[0] == f"ALTER SYSTEM SET synchronous_standby_names = '{value}';"


@pytest.mark.parametrize("setting", ["", "s1", "FIRST 1 (s1, s2)", 'ANY 2 ("cdc-publisher", "s1")', "cdc_publisher"])
def test_case_c8_standbys_of_other_names_are_no_defect(setting: str) -> None:
    assert defects.synchronous(setting, STREAM, []) is None


def test_case_c8_there_is_no_fix_while_the_standbys_cannot_be_seen() -> None:
    hidden = defects.synchronous("FIRST 1 (s1, *)", STREAM, None)
    assert hidden
    assert (hidden.fix, bool(hidden.hint)) == ((), True)


def test_case_a6_virtual_columns_are_told_from_stored_ones() -> None:
    defect = defects.never_published(("public", "outbox"), {"type": True, "payload": False})
    assert "'type' (stored), 'payload' (virtual)" in defect.problem
    assert (defect.fix, "from 18 on, and only stored ones" in defect.hint) == ((), True)


@pytest.mark.parametrize(
    ("columns", "compared"),
    [(["region", "day"], 'ROW(OLD."region", OLD."day")'), ([], "ROW(OLD.*)")],
    ids=["columns", "expressions"],
)
def test_case_b2_the_fix_refuses_updates_that_move_a_row(columns: list[str], compared: str) -> None:
    function, trigger, always = defects.rows_move(("public", "outbox"), columns, "it has none").fix
    assert "RAISE EXCEPTION" in function
    assert f'BEFORE UPDATE ON "public"."outbox" FOR EACH ROW WHEN ({compared} IS DISTINCT FROM' in trigger
    assert "ENABLE ALWAYS TRIGGER zz_outbox_stays" in always
