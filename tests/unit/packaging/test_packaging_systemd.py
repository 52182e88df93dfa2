"""The systemd unit: what it says of settings, secrets and exit codes is so, and systemd finds nothing wrong with it."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from cdc.config.loading import load
from cdc.config.settings import Settings
from cdc.errors import CdcError, ConfigError, Temporary
from cdc.fleet.supervision import KILL_SECONDS
from tests import ROOT

UNIT: Final = ROOT / "deploy" / "systemd" / "cdc-publisher.service"
TEXT: Final = UNIT.read_text()
FLEET: Final = UNIT.with_name("fleet.conf")


def given(name: str, text: str = TEXT) -> list[str]:
    """Every value of a directive."""
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def test_only_temporary_exit_codes_are_restarted() -> None:
    (prevented,) = given("RestartPreventExitStatus")
    codes = set(map(int, prevented.split()))
    assert codes == {CdcError.exit_code, ConfigError.exit_code, 2}  # 2: usage
    assert Temporary.exit_code not in codes
    assert given("Restart") == ["on-failure"]
    assert given("StartLimitIntervalSec") == ["0"]


def test_a_stop_may_drain_before_it_is_ended() -> None:
    (seconds,) = given("TimeoutStopSec")
    assert float(seconds) > Settings().delivery.drain_seconds + 10


def test_each_secret_is_a_credential_that_its_setting_names(tmp_path: Path) -> None:
    """Also those that are only examples."""
    text = TEXT.replace("\n#", "\n")
    credentials = dict(value.split(":", 1) for value in given("LoadCredential", text))
    environment = dict(pair.split("=", 1) for line in given("Environment", text) for pair in line.split())
    files = {name: value for name, value in environment.items() if name.endswith("_FILE")}
    assert set(files.values()) == {f"%d/{name}" for name in credentials}
    assert all(path == f"/etc/cdc-publisher/secrets/{name}" for name, path in credentials.items())
    for name, value in files.items():
        secret = tmp_path / value.removeprefix("%d/")
        secret.write_text("a secret\n")
        environment[name] = str(secret)
    environment["CDC_POSTGRES__DSN"] = "postgresql://cdc@db/shop"
    settings = load(environ={name: value for name, value in environment.items() if name.startswith("CDC_")})
    assert settings.kafka["sasl.password"] == "a secret"


@pytest.mark.parametrize(
    "directive",
    [
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "CapabilityBoundingSet=",
        "MemoryDenyWriteExecute=yes",
        "SystemCallFilter=@system-service",
    ],
)
def test_unit_is_sandboxed(directive: str) -> None:
    assert re.search(rf"^{re.escape(directive)}$", TEXT, re.MULTILINE)


def test_a_fleet_takes_no_secret_of_one_publisher_and_drains_all_units_before_it_is_ended() -> None:
    text = FLEET.read_text()
    assert given("LoadCredential", text) == [""]
    assert [value for value in given("Environment", text) if "CDC_" in value or not value] == [""]
    assert given("KillMode", text) == ["mixed"]
    (seconds,) = given("TimeoutStopSec", text)
    assert float(seconds) > Settings().delivery.drain_seconds + 2 * KILL_SECONDS
    cleared, start = given("ExecStart", text)
    assert cleared == ""
    assert start.split()[1:5:3] == ["--config", "start"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    """With a program that is there: whether that of the unit is, is not its fault."""
    folder = tmp_path / f"{UNIT.name}.d"
    folder.mkdir()
    for file in (tmp_path / UNIT.name, folder / FLEET.name):
        text = UNIT.with_name(file.name).read_text()
        file.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE))
        done = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / UNIT.name)],
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (0, [])
