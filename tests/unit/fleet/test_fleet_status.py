"""What `fleet status` makes of the register, the members and the documents of instances."""

from typing import Any

import pytest

from cdc.config.settings import Settings
from cdc.fleet import status
from cdc.fleet.register import Register, entry
from cdc.fleet.status import Survey, UnitLine, survey
from cdc.kafka.cluster import GroupMember
from cdc.lsn import LSN
from cdc.status.client import NoAnswer
from cdc.status.document import Lag, SlotStatus, StatusDocument
from cdc.status.fleet import FleetDocument, UnitState, UnitStatus
from cdc.telemetry.health import State

TOPIC = "cdc.fleet.default"


def member(name: str, *partitions: int) -> GroupMember:
    return GroupMember(name, "10.0.0.7", frozenset((TOPIC, number) for number in partitions))


def document(instance: str, **units: UnitStatus) -> FleetDocument:
    return FleetDocument(
        version="1", time="now", fleet="default", instance=instance, ready=True, joined=True, summary="", units=units
    )


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The register, the members, and the documents by URL; a test may change them."""
    register = Register()
    for number, unit in enumerate(("shop", "cart", "zoo"), 1):
        register.take(unit.encode(), entry(number))
    register.ends()
    given: dict[str, Any] = {"register": register, "members": [member("one", 0, 1), member("two", 2)], "documents": {}}

    class Group:
        def __init__(self, _: object) -> None:
            pass

        def group_members(self, group: str, _: float) -> list[GroupMember]:
            assert group == TOPIC
            members: list[GroupMember] = given["members"]
            return members

    def ask(url: str) -> FleetDocument:
        try:
            found: FleetDocument = given["documents"][url]
        except KeyError:
            raise NoAnswer(f"{url}: connection refused") from None
        return found

    monkeypatch.setattr(status, "Cluster", Group)
    monkeypatch.setattr(status, "read_register", lambda *_: given["register"])
    monkeypatch.setattr("cdc.status.client.ask_fleet", ask)
    return given


def looked(*urls: str) -> Survey:
    return survey(Settings(), urls, 1.0)


def test_units_have_the_instance_of_their_partition(fleet: dict[str, Any]) -> None:
    found = looked()
    assert [(line.unit, line.instance) for line in found.units] == [("cart", "two"), ("shop", "one"), ("zoo", "")]
    assert found.members == ["one", "two"]
    assert found.exit_code == 75  # zoo has none
    fleet["members"].append(member("three", 3))
    assert looked().exit_code == 0


def test_instances_say_how_their_units_are(fleet: dict[str, Any]) -> None:
    fleet["members"].append(member("three", 3))
    slot, lag = SlotStatus(name="shop"), Lag(bytes=2048)
    streams = StatusDocument(
        version="1", time="now", running=True, state=State.STREAMING, summary="streaming", slot=slot, lag=lag
    )
    working = UnitStatus(partition=1, state=UnitState.WORKING, status=streams)
    failed = UnitStatus(partition=2, state=UnitState.FAILED, summary="poison")
    elsewhere = UnitStatus(partition=2, state=UnitState.ELSEWHERE)
    fleet["documents"]["http://a"] = document("one", shop=working, cart=elsewhere)
    found = looked("http://a", "http://b")
    assert found.exit_code == 0
    assert found.notes == ["http://b: connection refused"]
    assert next(line for line in found.units if line.unit == "shop").lag_bytes == 2048
    fleet["documents"]["http://b"] = document("two", cart=failed)
    found = looked("http://a", "http://b")
    assert found.exit_code == 1
    assert next(line.summary for line in found.units if line.unit == "cart") == "poison"
    assert {unit["unit"]: unit["state"] for unit in found.facts()["units"]} == {
        "shop": "working",
        "cart": "failed",
        "zoo": None,
    }


def test_an_instance_that_drains_a_unit_says_nothing_about_its_new_instance(fleet: dict[str, Any]) -> None:
    fleet["documents"]["http://two"] = document("two", shop=UnitStatus(partition=1, state=UnitState.DRAINING))
    assert next(line for line in looked("http://two").units if line.unit == "shop").state == ""


def test_a_unit_that_only_a_folder_has_is_shown_without_an_instance(fleet: dict[str, Any]) -> None:
    fleet["documents"]["http://a"] = document("one", new=UnitStatus(state=UnitState.UNREGISTERED, summary="bad"))
    (line,) = [line for line in looked("http://a").units if line.unit == "new"]
    assert line.cells()[1:4] == ("-", "none", "unregistered")


def test_a_fleet_that_never_ran_is_said_to_be_so(fleet: dict[str, Any]) -> None:
    fleet["register"] = None
    found = looked()
    assert (found.units, found.exit_code) == ([], 0)
    assert "no instance was ever started" in found.notes[0]


def test_cells_show_how_far_a_slot_is_from_an_lsn() -> None:
    line = UnitLine("shop", 1, "one", confirmed="0/1000")
    assert line.cells(LSN(0x1000))[6] == "reached"
    assert line.cells(LSN(0x1400))[6] == "1.0 kB left"
    for unknown in (None, "x"):
        assert UnitLine("shop", 1, "one", confirmed=unknown).cells(LSN(1))[6] == "-"


def test_cells_of_a_unit_that_no_instance_was_asked_about() -> None:
    assert UnitLine("shop", 1, "one").cells() == ("shop", "1", "one", "unknown", "-", "-", "")
    assert UnitLine("shop", 1).cells()[2:4] == ("none", "without an instance")
