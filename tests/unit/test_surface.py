"""What users rely on does not change by accident: the code's public surface is that of tests/surface.json."""

import pytest

from tests import surface
from tests.surface import Surface

ACCEPT = "run python -m tests.surface to accept this, and say so in the commit and in CHANGELOG.md"


def test_the_surface_is_the_one_that_is_kept() -> None:
    found = surface.differences(surface.load(), surface.surface())
    if found:
        pytest.fail("\n".join(["the public surface has changed:", *found, ACCEPT]), pytrace=False)


def test_the_file_is_sorted_and_has_one_entry_a_line() -> None:
    kept = surface.load()
    assert surface.FILE.read_text() == surface.text(kept)
    assert list(kept) == sorted(kept)
    assert all(list(entries) == sorted(entries) for entries in kept.values())


def test_every_section_has_entries() -> None:
    assert {section: bool(entries) for section, entries in surface.load().items()} == dict.fromkeys(
        surface.SECTIONS, True
    )


@pytest.mark.parametrize(
    ("kept", "found", "line"),
    [
        ({"exit codes": {}}, {"exit codes": {"Fenced": "75"}}, 'added: exit codes: Fenced: "75"'),
        ({"exit codes": {"Fenced": "75"}}, {"exit codes": {}}, 'removed: exit codes: Fenced: "75"'),
        ({"sql": {"inbox": "1"}}, {}, 'removed: sql: inbox: "1"'),
        ({"sql": {"inbox": "1"}}, {"sql": {"inbox": "2"}}, 'changed: sql: inbox: "1" -> "2"'),
    ],
)
def test_a_difference_is_named(kept: Surface, found: Surface, line: str) -> None:
    assert surface.differences(kept, found) == [line]
