"""What the image holds: locked by hash, within the bounds of pyproject.toml, and looked up among vulnerabilities."""

import json
import re
import sys
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT
from tests.vulnerabilities import judged, looked_up

LOCK = (ROOT / "docker" / "requirements.txt").read_text()
PINS = {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, re.MULTILINE)}
EXTRAS = ("registry", "otel")  # that the image has, besides what is always needed


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in (*project["dependencies"], *extras)]


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_the_lock_holds_what_the_project_needs_within_its_bounds(requirement: Requirement) -> None:
    version = PINS.get(canonicalize_name(requirement.name))
    assert version is not None, "run make lock"
    assert requirement.specifier.contains(version, prereleases=True)


def test_every_package_of_the_lock_is_known_by_the_hashes_of_its_files() -> None:
    packages = re.split(r"^(?=[a-z])", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) == len(PINS) > 20
    assert [package for package in packages if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", package)] == []


def test_the_lock_names_no_index_and_no_place_of_the_machine_that_made_it() -> None:
    assert re.findall(r"https?://\S+|--(?:extra-)?index-url.*|--find-links.*|^/.*|file:.*", LOCK, re.MULTILINE) == []


def test_the_lock_is_for_the_images_python() -> None:
    image = re.search(r"^ARG PYTHON=(\d+\.\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    lock = re.search(r"--python-version (\S+)", (ROOT / "Makefile").read_text())
    assert image
    assert lock
    assert image[1] == lock[1]


def report(*packages: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": packages, "fixes": []}


GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {
    "name": "b",
    "version": "2",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"], "aliases": [], "description": ""}],
}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


def test_a_known_vulnerability_is_red() -> None:
    code, lines = judged(report(GOOD, BAD, UNKNOWN))
    assert code == 1
    assert lines[:2] == ["b 2: PYSEC-1, mended in 3", "2 packages looked up, 1 vulnerabilities"]


def test_what_could_not_be_looked_up_is_told_and_is_not_red() -> None:
    assert judged(report(GOOD)) == (0, ["1 packages looked up, 0 vulnerabilities"])
    code, lines = judged(report(GOOD, UNKNOWN))
    assert (code, lines[1:]) == (0, ["WARNING: 1 packages could not be looked up: c"])


def test_pip_audits_report_is_judged_and_its_failure_is_told() -> None:
    vulnerable = f"import sys; print({json.dumps(json.dumps(report(BAD)))}); sys.exit(1)"
    assert looked_up([sys.executable, "-c", vulnerable])[0] == 1
    failing = "import sys; sys.exit('ConnectionError: no network')"
    assert looked_up([sys.executable, "-c", failing]) == (
        0,
        ["WARNING: nothing could be looked up: ConnectionError: no network"],
    )
