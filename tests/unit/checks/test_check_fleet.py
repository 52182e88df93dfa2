"""The lines of `check` about all units of a fleet together."""

from cdc.checks import fleet
from cdc.checks.finding import Finding, Notes
from cdc.checks.fleet import Server
from cdc.errors import PostgresUnavailable
from tests.produced import produces, record

ROOMY = Server("db:5432", 4, 4, 0, 5, 10, 1, 10, 5, 100, ())


def found(notes: Notes) -> dict[str, Finding]:
    record((one.name, one.status) for one in notes.findings)
    return {one.name: one for one in notes.findings}


def judged(*servers: Server, silent: bool = False, all_units: bool = True) -> dict[str, Finding]:
    notes = Notes("fleet")
    unreachable = [PostgresUnavailable("db:5433 does not answer")] if silent else []
    fleet.servers(notes, servers, unreachable, all_units=all_units)
    return found(notes)


def test_servers_with_room_pass() -> None:
    lines = judged(ROOMY)
    assert {line.status for line in lines.values()} == {"pass"}
    assert lines["fleet_walsenders"].found == "db:5432: 5 of 10"
    assert lines["fleet_connections"].found == "db:5432: 13 of 100"


@produces("fleet_slots:fail", "fleet_walsenders:fail", "fleet_connections:fail")
def test_servers_without_room_fail_with_the_statement_that_makes_room() -> None:
    lines = judged(ROOMY, Server("db:5433", 12, 12, 8, 4, 10, 0, 10, 90, 100, ()))
    assert lines["fleet_slots"].found.startswith("db:5433: 12 units need 12 of max_replication_slots")
    assert lines["fleet_slots"].fix[0].startswith("ALTER SYSTEM SET max_replication_slots = 22;")
    assert lines["fleet_walsenders"].fix[0].startswith("ALTER SYSTEM SET max_wal_senders = 22;")
    assert lines["fleet_connections"].fix[0].startswith("ALTER SYSTEM SET max_connections = 124;")


@produces("fleet_slots:warn", "fleet_walsenders:warn", "fleet_connections:warn")
def test_servers_that_do_not_answer_are_named() -> None:
    lines = judged(ROOMY, silent=True)
    assert lines["fleet_slots"].found == "not known for every server: db:5433 does not answer"


@produces("fleet_other_slots:warn")
def test_slots_that_no_unit_has_are_named() -> None:
    line = judged(ROOMY._replace(strangers=("former",)))["fleet_other_slots"]
    assert "former at db:5432" in line.found
    assert line.fix == ("SELECT pg_drop_replication_slot('former');",)


def test_slots_of_outboxes_in_use_that_no_unit_has_are_named_and_not_to_be_dropped() -> None:
    line = judged(ROOMY._replace(unread=("outbox_4_0",)))["fleet_other_slots"]
    assert "outbox_4_0 at db:5432, of an outbox that is in use" in line.found
    assert (line.status, line.fix) == ("warn", ())


@produces("fleet_old_publications:warn")
def test_publications_of_replaced_outboxes_are_named() -> None:
    line = judged(ROOMY._replace(former=(("shop", "outbox_2_0"),)))["fleet_old_publications"]
    assert "outbox_2_0 in shop at db:5432" in line.found
    assert line.fix == ('DROP PUBLICATION "outbox_2_0";',)


def test_no_slot_is_to_be_dropped_while_it_may_be_that_of_a_file_that_cannot_be_used() -> None:
    lines = judged(ROOMY._replace(strangers=("hidden",), former=(("shop", "hidden"),)), all_units=False)
    for name in ("fleet_other_slots", "fleet_old_publications"):
        assert (lines[name].status, lines[name].fix) == ("warn", ())
        assert "hidden" not in lines[name].found


@produces("unit_files:fail", "unit_files:warn")
def test_files_that_cannot_be_used_are_told() -> None:
    notes = Notes("fleet")
    fleet.files(notes, 3, ["shop: unknown setting"])
    assert found(notes)["unit_files"].found == "shop: unknown setting"
    fleet.files(notes, 0, [])
    assert found(notes)["unit_files"].status == "warn"
    fleet.files(notes, 3, [])
    assert found(notes)["unit_files"].status == "pass"
