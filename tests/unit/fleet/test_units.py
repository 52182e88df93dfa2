"""Units: names, slots that two of them share, and what a file and the defaults of the fleet make of each."""

from pathlib import Path

import pytest

from cdc.cli.main import Invocation
from cdc.config.loading import load_fleet
from cdc.config.settings import Settings
from cdc.errors import ConfigError
from cdc.fleet.folder import Folder, server_of
from cdc.fleet.units import Unit, arranged, digests, name_problem
from cdc.logs import format as lines

DSN = "postgresql://shop@db/shop"


@pytest.mark.parametrize("name", ["shop", "shop-eu.1", "A_1", "0"])
def test_names_that_units_may_have(name: str) -> None:
    assert name_problem(name) == ""


@pytest.mark.parametrize("name", ["", ".hidden", "two words", "a/b", "ö", "x" * 101, "-x"])
def test_names_that_units_may_not_have(name: str) -> None:
    assert "letters, digits" in name_problem(name)


class Files:
    """The files of a fleet in a folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.fleet = '[kafka]\n"bootstrap.servers" = "kafka:9092"\n"sasl.password" = "fleet-secret"\n'
        (home / "units").mkdir()

    def unit(self, name: str, *lines: str, slot: str = "") -> None:
        text = [f'[postgres]\ndsn = "{DSN}"\nslot = "{slot or name}"', *lines]
        (self.home / "units" / f"{name}.toml").write_text("\n".join(text))

    def read(self, environ: dict[str, str] | None = None) -> dict[str, Unit]:
        file = self.home / "fleet.toml"
        file.write_text(self.fleet)
        settings, defaults = load_fleet(file, environ=environ or {})
        return Folder(self.home / "units", settings, defaults).units()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_each_file_is_a_unit_with_the_defaults_of_the_fleet(files: Files) -> None:
    files.fleet += '[delivery]\nguarantee = "exactly-once"\non_poison = "dead-letter"\n[avro]\nschemas = "contracts"\n'
    files.unit("shop", '[delivery]\non_poison = "stop"')
    files.unit("cart")
    (files.home / "units" / "README.md").write_text("no unit")
    units = files.read()
    assert list(units) == ["cart", "shop"]
    cart, other = units["cart"].settings, units["shop"].settings
    assert cart
    assert other
    assert (cart.delivery.guarantee, cart.delivery.on_poison) == ("exactly-once", "dead-letter")
    assert (other.delivery.guarantee, other.delivery.on_poison) == ("exactly-once", "stop")
    assert cart.kafka["bootstrap.servers"] == "kafka:9092"
    assert cart.avro.schemas == files.home / "contracts"


def test_a_unit_with_a_kafka_of_its_own_gets_no_credentials_of_the_fleets(files: Files) -> None:
    files.unit("shop", '[kafka]\n"bootstrap.servers" = "other:9092"')
    files.unit("cart", '[kafka]\n"linger.ms" = 7')
    units = files.read()
    shop, cart = units["shop"].settings, units["cart"].settings
    assert shop
    assert cart
    assert dict(shop.kafka) == {"bootstrap.servers": "other:9092"}
    assert cart.kafka == {"bootstrap.servers": "kafka:9092", "sasl.password": "fleet-secret", "linger.ms": 7}


def test_the_environment_sets_the_fleets_file_only(files: Files) -> None:
    files.unit("shop")
    settings = files.read({"CDC_KAFKA__SASL_USERNAME": "me"})["shop"].settings
    assert settings
    assert settings.kafka["sasl.username"] == "me"
    with pytest.raises(ConfigError, match=r"CDC_POSTGRES__SLOT: \[postgres\] belongs in the files of the units"):
        files.read({"CDC_POSTGRES__SLOT": "other"})


@pytest.mark.parametrize("section", ["postgres", "outbox"])
def test_what_is_a_units_own_is_refused_in_the_fleets_file(files: Files, section: str) -> None:
    files.fleet += f"[{section}]\n"
    with pytest.raises(ConfigError, match=rf"\[{section}\] belongs in the files of the units"):
        files.read()


@pytest.mark.parametrize("section", ["fleet", "http"])
def test_what_is_the_fleets_own_is_refused_in_a_units_file(files: Files, section: str) -> None:
    files.unit("shop", f"[{section}]")
    (problem,) = files.read()["shop"].problems
    assert problem.endswith(f"shop.toml: [{section}] belongs in the file of the fleet")


def test_secrets_of_a_unit_are_files_in_a_folder_of_its_name(files: Files) -> None:
    files.fleet += '[fleet]\nsecrets = "secrets"\n'
    files.unit("shop")
    files.unit("cart")
    folder = files.home / "secrets" / "shop"
    folder.mkdir(parents=True)
    (folder / "CDC_POSTGRES__PASSWORD").write_text("of-shop\n")
    (folder / "..data").mkdir()
    units = files.read()
    shop, cart = units["shop"].settings, units["cart"].settings
    assert shop
    assert cart
    assert (shop.postgres.password, cart.postgres.password) == ("of-shop", None)
    assert "of-shop" in shop.postgres.dsn
    (folder / "CDC_POSTGRES__NOTHING").write_text("x")
    assert "CDC_POSTGRES__NOTHING: [postgres] nothing: unknown setting" in files.read()["shop"].problems[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[postgres", "settings file"),
        ("[postgres]\nslott = 'x'", "unknown setting; did you mean 'slot'?"),
        ("[outbox]\n", "[postgres] dsn is required"),
        ("[postgres]\ndsn = 'port=x'", "invalid integer value"),
        ("\ufeff[postgres]", "byte order mark"),
    ],
)
def test_a_file_that_cannot_be_used_leaves_the_other_units_alone(files: Files, text: str, problem: str) -> None:
    files.unit("cart")
    (files.home / "units" / "shop.toml").write_text(text)
    units = files.read()
    assert units["cart"].settings
    assert units["shop"].settings is None
    assert any(problem in each for each in units["shop"].problems), units["shop"].problems


def test_a_file_whose_name_cannot_be_a_units_is_told(files: Files) -> None:
    files.unit("two words", slot="two")
    assert "letters, digits" in files.read()["two words"].problems[0]


def test_a_command_for_one_unit_has_the_settings_that_the_fleet_gives_it(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_scrub", str)
    files.fleet += '[fleet]\nsecrets = "secrets"\n'
    files.unit("shop", '[topics]\nname = "shop.{aggregatetype}"')
    secret = files.home / "secrets" / "shop" / "CDC_POSTGRES__PASSWORD"
    secret.parent.mkdir(parents=True)
    secret.write_text("of-shop\n")
    in_fleet = files.read()["shop"].settings
    file = files.home / "units" / "shop.toml"
    command = Invocation(files.home / "fleet.toml", "text", False, ("delivery.drain_seconds=7",), file)
    settings = command.settings()
    assert in_fleet
    assert settings.delivery.drain_seconds == 7
    assert settings.model_copy(update={"delivery": in_fleet.delivery}) == in_fleet
    assert lines.hidden("of-shop fleet-secret") == "******** ********"
    assert command.program().endswith(f"fleet.toml --set delivery.drain_seconds=7 --unit {file}")


def test_secrets_of_the_environment_stay_masked_when_the_folder_is_read(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_scrub", str)
    monkeypatch.setenv("PGPASSWORD", "from-outside")
    files.unit("shop")
    files.read()
    assert "from-outside" not in lines.hidden("password from-outside")


def test_units_that_share_a_slot_are_both_refused(files: Files) -> None:
    files.unit("shop", slot="same")
    files.unit("cart", slot="same")
    files.unit("zoo")
    units = files.read()
    assert units["zoo"].settings
    assert units["shop"].problems == (
        "slot 'same' at db:5432 is also that of unit cart; give each unit a slot of its own",
    )
    assert units["cart"].settings is None


def test_units_of_different_servers_may_have_slots_of_one_name(files: Files) -> None:
    files.unit("shop", slot="same")
    other = files.home / "units" / "cart.toml"
    other.write_text('[postgres]\ndsn = "postgresql://db:5433/shop"\nslot = "same"')
    assert all(unit.settings for unit in files.read().values())


def test_a_folder_that_is_not_there_is_one_clear_line(files: Files) -> None:
    (files.home / "units").rmdir()
    with pytest.raises(ConfigError, match=r"folder .*units: No such file or directory; name the folder"):
        files.read()


def test_a_digest_changes_with_the_settings_and_with_nothing_else(files: Files) -> None:
    files.unit("shop")
    first = digests(files.read())
    assert digests(files.read()) == first
    files.unit("shop", "[delivery]\ndrain_seconds = 7")
    assert digests(files.read()) != first


def test_the_names_of_this_machine_are_one_server() -> None:
    for dsn in ("host=localhost", "host=127.0.0.1", "postgresql://localhost:5432/x", "host=LOCALHOST port=5432"):
        assert server_of(Settings.model_validate({"postgres": {"dsn": dsn}})) == "127.0.0.1:5432"


def test_arranging_keeps_what_was_wrong_before() -> None:
    assert arranged([Unit("b", None, problems=("x",)), Unit("a", None)])["b"].problems == ("x",)
