"""Instances of a fleet on real servers: units are shared out, taken over, and left alone where nothing is wrong."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import psycopg
import pytest

from cdc.status.fleet import UnitState
from tests.fleets import SESSION, FleetWorld, Started
from tests.pipeline import eventually
from tests.servers import Servers, a_database, topics_deleted

UNITS = ("orders", "shop", "zoo")


@pytest.fixture
def world(servers: Servers, tmp_path: Path) -> Iterator[FleetWorld]:
    with a_database(servers.dsn) as dsn, topics_deleted(servers.kafka) as prefix:
        made = FleetWorld(dsn, servers.kafka, prefix, tmp_path)
        yield made
        made.close()


@pytest.fixture
def units(world: FleetWorld) -> FleetWorld:
    """A world with three units."""
    for unit in UNITS:
        world.add(unit)
    return world


def working(instance: Started) -> set[str]:
    return instance.units(UnitState.WORKING)


def shared_out(*instances: Started) -> Callable[[], bool]:
    """Whether each unit works in exactly one of two instances, and each has one: of four partitions one has none."""

    def shared() -> bool:
        parts = [working(each) for each in instances]
        return sum(map(len, parts)) == len(UNITS) and set().union(*parts) == {*UNITS} and all(parts)

    return shared


def test_units_are_shared_out_and_taken_over_when_instances_come_freeze_die_and_leave(units: FleetWorld) -> None:
    first = units.start().becomes_ready()
    eventually(lambda: working(first) == {*UNITS}, "the only instance has all units")
    for unit in UNITS:
        units.publishes(unit, 1)
    second = units.start().becomes_ready()
    eventually(shared_out(first, second), "each instance has a unit")
    for unit in UNITS:
        units.publishes(unit, 2)

    second.kill()
    eventually(lambda: working(first) == {*UNITS}, "the units of a killed instance are taken over")
    for unit in UNITS:
        units.publishes(unit, 3)

    third = units.start().becomes_ready()
    eventually(shared_out(first, third), "each instance has a unit")
    third.signal(signal.SIGSTOP)
    time.sleep(SESSION + 2)  # its session ends; its units continue, and others stand by for them
    for unit in UNITS:
        units.publishes(unit, 4)
    third.signal(signal.SIGCONT)
    third.logs("the group is lost")
    eventually(shared_out(first, third), "a frozen instance has units again")
    for unit in UNITS:
        units.publishes(unit, 5)

    assert third.stop() == 0
    eventually(lambda: working(first) == {*UNITS}, "the units of an instance that left are taken over")
    for unit in UNITS:
        units.publishes(unit, 6)
        assert units.received(unit) == [1, 2, 3, 4, 5, 6]
    assert first.stop() == 0
    for unit in UNITS:
        assert [line["exit_code"] for line in first.events("unit_ended", unit)][-1] == 0


def test_a_new_file_moves_no_unit_and_a_deleted_topic_stops_none(units: FleetWorld) -> None:
    instance = units.start().becomes_ready()
    eventually(lambda: working(instance) == {*UNITS}, "all units work")
    before = {name: unit.partition for name, unit in instance.document().units.items()}
    units.add("a_first")
    eventually(lambda: working(instance) == {"a_first", *UNITS}, "the new unit works")
    after = {name: unit.partition for name, unit in instance.document().units.items()}
    assert {name: after[name] for name in before} == before
    assert after["a_first"] == len(UNITS) + 1

    units.delete_topic()
    instance.logs("was re-created")
    eventually(lambda: units.registered() == after, "the register is written again")
    for unit in after:
        units.publishes(unit, 1)
    assert {name: unit.partition for name, unit in instance.document().units.items()} == after
    assert instance.events("unit_ends") == []

    (units.folder / "zoo.toml").unlink()
    eventually(lambda: instance.units(UnitState.NO_FILE) == {"zoo"}, "a unit without a file ends")
    done = units.run("fleet", "forget", "zoo")
    assert (done.returncode, done.stdout) == (0, "unit zoo is forgotten\n")
    eventually(lambda: "zoo" not in instance.document().units, "the unit is forgotten")
    again = units.run("fleet", "forget", "zoo")
    assert again.returncode == 1
    assert "unit 'zoo' is not in the register" in again.stderr


def test_bad_files_and_a_unit_that_needs_an_operator_leave_the_others_alone(units: FleetWorld) -> None:
    (units.folder / "broken.toml").write_text("[postgres")
    (units.folder / "typo.toml").write_text("[postgres]\ndsn = 'host=x'\nslott = 'x'")
    units.add("twin", prepared=False)
    (units.folder / "twin.toml").write_text((units.folder / "zoo.toml").read_text())
    units.add("away", "postgresql://postgres@127.0.0.1:1/none", prepared=False)
    units.add("no_slot", prepared=False)
    units.settings = "[delivery]\nstartup_seconds = 1"
    instance = units.start().becomes_ready()
    eventually(lambda: working(instance) == {"orders", "shop"}, "two units work")
    for name, problem in (
        ("broken", "unit broken: settings file"),
        ("typo", "unknown setting; did you mean 'slot'?"),
        ("twin", "is also that of unit zoo"),
        ("zoo", "is also that of unit twin"),
    ):
        assert any(f"unit {name}: " in line and problem in line for line in instance.messages()), problem
    eventually(lambda: instance.units(UnitState.FAILED) == {"no_slot"}, "a unit without a slot needs an operator")
    eventually(lambda: bool(instance.events("unit_failed", "away")), "a unit without a database is tried again")
    document = instance.document()
    assert document.ready
    assert any("no_slot" in problem for problem in document.problems)
    for unit in ("orders", "shop"):
        units.publishes(unit, 1)
        assert units.received(unit) == [1]
        assert len(instance.events("unit_starts", unit)) == 1

    status = units.run("fleet", "status", "--url", instance.url, "--lsn", "0/1")
    assert status.returncode == 1
    lines = {line.split()[0]: line for line in status.stdout.splitlines()}
    assert "working" in lines["shop"]
    assert "reached" in lines["shop"]
    assert "failed" in lines["no_slot"]
    facts = json.loads(units.run("fleet", "status", "--json", "--url", instance.url).stdout)
    assert facts["fleet"] == units.name
    assert {unit["unit"]: unit["state"] for unit in facts["units"]}["orders"] == "working"
    assert len(facts["instances"]) == 1

    (units.folder / "twin.toml").unlink()
    eventually(lambda: "zoo" in working(instance), "a unit starts when its file is right")


def test_a_rolling_change_moves_no_other_unit_and_stops_at_a_broken_version(units: FleetWorld) -> None:
    folders = [units.folder, units.home / "units-2"]
    shutil.copytree(folders[0], folders[1])
    first, second = instances = [units.start(folder).becomes_ready() for folder in folders]
    eventually(shared_out(first, second), "each instance has a unit")
    before = [{name: unit.pid for name, unit in each.document().units.items() if unit.pid} for each in instances]
    partitions = units.registered()
    units.add("a_first")
    eventually(lambda: "a_first" in units.registered(), "one of two instances has the new file")
    shutil.copy(units.folder / "a_first.toml", folders[1])
    eventually(lambda: "a_first" in working(first) | working(second), "both have it, and it works")
    after = [{name: unit.pid for name, unit in each.document().units.items() if unit.pid} for each in instances]
    assert [{name: pid for name, pid in each.items() if name != "a_first"} for each in after] == before
    assert units.registered() == partitions | {"a_first": len(UNITS) + 1}

    eventually(lambda: units.worked() == {"a_first", *UNITS}, "the register knows that all units work")
    (units.home / "schemas" / "Noted.avsc").rename(units.home / "Noted.avsc")
    (units.home / "schemas" / "Broken.avsc").write_text("{}")
    third = units.start()
    third.logs("listening")
    eventually(lambda: any("fails here and worked elsewhere" in line for line in third.document().problems), "blamed")
    assert not third.document().ready
    assert first.document().ready
    assert second.document().ready
    left = working(first) | working(second)
    assert left
    for unit in left:
        units.publishes(unit, 1)


def test_metrics_have_the_label_unit_and_each_family_once(units: FleetWorld) -> None:
    instance = units.start().becomes_ready()
    eventually(lambda: working(instance) == {*UNITS}, "all units work")
    units.publishes("shop", 1, 2, 3)

    def metrics() -> str:
        with urlopen(f"{instance.url}/metrics") as answer:
            return str(answer.read().decode())

    eventually(lambda: 'cdc_delivered_events_total{unit="shop"} 3.0' in metrics(), "counted")
    text = metrics()
    helped = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert len(helped) == len({*helped})
    assert 'cdc_fleet_units{state="working"} 3.0' in text
    assert 'cdc_fleet_unit_assigned{unit="shop"} 1.0' in text


def test_the_program_refuses_what_is_not_a_fleet_in_one_line(world: FleetWorld) -> None:
    gone = world.run("fleet", "start", str(world.home / "nothing"))
    assert gone.returncode == 78
    assert "name the folder that has one .toml file per unit" in gone.stderr
    world.settings = "[postgres]\nslot = 'x'"
    refused = world.run("fleet", "start", str(world.folder))
    assert refused.returncode == 78
    assert "[postgres] belongs in the files of the units" in refused.stderr
    world.settings = ""
    status = world.run("fleet", "status")
    assert "no instance was ever started" in status.stdout


def test_a_session_that_brokers_refuse_is_named(world: FleetWorld) -> None:
    world.session = 1
    instance = world.start()
    instance.logs("set [fleet] session_seconds to a value between group.min.session.timeout.ms")
    assert not instance.document().ready
    assert instance.stop() == 0


def test_a_password_that_changes_in_its_file_is_used_when_the_unit_fails(units: FleetWorld) -> None:
    secrets = units.home / "secrets" / "shop"
    secrets.mkdir(parents=True)
    units.fleet_settings = f'secrets = "{units.home / "secrets"}"'
    (secrets / "CDC_DELIVERY__STARTUP_SECONDS").write_text("1")
    (secrets / "CDC_POSTGRES__PUBLICATION").write_text("wrong")
    instance = units.start().becomes_ready()
    eventually(lambda: instance.units(UnitState.FAILED) == {"shop"}, "a wrong secret is told")
    (secrets / "CDC_POSTGRES__PUBLICATION").write_text("shop")
    eventually(lambda: working(instance) == {*UNITS}, "the right secret is used")


def test_a_child_or_the_process_that_forks_them_may_die_and_no_other_unit_notices(units: FleetWorld) -> None:
    instance = units.start().becomes_ready()
    eventually(lambda: working(instance) == {*UNITS}, "all units work")
    before = {name: unit.pid for name, unit in instance.document().units.items()}
    shop = before["shop"]
    assert shop
    os.kill(psutil.Process(shop).ppid(), signal.SIGKILL)  # the process that they are forked from
    os.kill(shop, signal.SIGKILL)
    eventually(lambda: instance.document().units["shop"].pid not in (None, shop), "another process for the unit")
    eventually(lambda: working(instance) == {*UNITS}, "all units work again")
    after = {name: unit.pid for name, unit in instance.document().units.items()}
    assert {name: after[name] == before[name] for name in UNITS} == {"orders": True, "shop": False, "zoo": True}
    (failed,) = instance.events("unit_failed")
    assert (failed["unit"], failed["exit_code"]) == ("shop", None)
    for unit in UNITS:
        units.publishes(unit, 1)
    assert instance.stop() == 0


def test_the_second_signal_ends_an_instance_at_once_and_its_units_with_it(units: FleetWorld) -> None:
    instance = units.start().becomes_ready()
    eventually(lambda: working(instance) == {*UNITS}, "all units work")
    pids = [unit.pid for unit in instance.document().units.values()]
    for pid in pids:
        assert pid
        os.kill(pid, signal.SIGSTOP)  # they cannot drain
    instance.signal(signal.SIGTERM)
    instance.logs("unit ends")
    instance.signal(signal.SIGTERM)
    assert instance.wait() == 128 + signal.SIGTERM
    for pid in pids:
        assert pid
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: not any(psutil.pid_exists(pid or 0) for pid in pids), "no unit is left")


def test_check_and_audit_look_at_every_unit_and_add_up(units: FleetWorld) -> None:
    for unit in UNITS:
        units.insert(unit, 1, 2)
    instance = units.start().becomes_ready()
    for unit in UNITS:
        units.settles(unit)
    file = str(units.folder / "shop.toml")
    one = units.run("--unit", file, "check", "--json")
    by_name = {line["name"]: line["found"] for line in json.loads(one.stdout)["checks"]}
    assert units.slot("shop") in by_name["replication_slot"]
    assert f"{units.prefix}positions" in by_name["positions_topic"]  # a default of the fleet
    assert "this command takes the fleet" in units.run("--unit", file, "fleet", "status").stderr
    with psycopg.connect(units.dsn, autocommit=True) as connection:
        former = units.slot("former")
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [former])
        connection.execute("create publication former with (publish = 'insert', publish_via_partition_root)")
        checked = json.loads(units.run("check", str(units.folder), "--json").stdout)
        found = {line["name"]: line for line in checked["fleet"]["checks"]}
        assert former in found["fleet_other_slots"]["found"]
        assert found["fleet_old_publications"]["fix"] == ['DROP PUBLICATION "former";']
        connection.execute("drop publication former")
        connection.execute("select pg_drop_replication_slot(%s)", [former])
    checked = json.loads(units.run("check", str(units.folder), "--json").stdout)
    assert {*checked["units"]} == {*UNITS}
    found = {one["name"]: one for one in checked["fleet"]["checks"]}
    assert {line["status"] for line in found.values()} == {"pass"}
    by_name = {one["name"]: one["status"] for one in checked["units"]["shop"]["checks"]}
    assert by_name["outbox_table"] == "pass"
    text = units.run("check", str(units.folder)).stdout
    assert "Unit shop" in text
    assert "Fleet" in text

    audited = units.run("audit", str(units.folder), "--json")
    assert audited.returncode == 0, audited.stderr
    facts = json.loads(audited.stdout)
    assert {*facts["units"]} == {*UNITS}
    assert (facts["counts"]["rows"], facts["counts"]["delivered"]) == (6, 6)
    assert "foreign" not in facts["counts"]  # parts of an outbox share topics
    assert instance.stop() == 0
    (units.folder / "broken.toml").write_text("[postgres")
    again = units.run("audit", str(units.folder))
    assert again.returncode == 78
    assert "unit broken was not audited" in again.stderr
    assert "all 3 units" in again.stdout
    assert units.run("audit", str(units.folder), "--repair").returncode == 2
    refused = units.run("check", str(units.folder), "--json")
    assert refused.returncode == 1
    assert "broken" in json.loads(refused.stdout)["fleet"]["checks"][0]["found"]
