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
