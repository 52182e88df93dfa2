"""The workflows, templates and hooks of the repository, as far as they can be judged without GitHub."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from cdc import __version__
from tests import shell_lines
from tests.documents import PAGES, ROOT

GITHUB: Final = ROOT / ".github"
WORKFLOWS: Final = sorted((GITHUB / "workflows").glob("*.yml"))
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERBS: Final = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PINNED: Final = re.compile(r"[\w-]+/[\w./-]+@(?:(?:release/)?v\d+(?:\.\d+)*|[0-9a-f]{40})")
POSTGRES: Final = ["14", "15", "16", "17", "18"]
PYTHONS: Final = re.findall(r"Python :: (\d\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
# The only jobs that may write anything, and what.
WRITES: Final = {
    ("docs", "publish"): {"pages", "id-token"},
    ("release", "publish"): {"id-token"},
    ("release", "image"): {"packages", "id-token", "attestations"},
    ("release", "release"): {"contents"},
}


class Job(NamedTuple):
    """One job of a workflow."""

    workflow: str
    name: str
    body: dict[str, Any]

    @property
    def steps(self) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = self.body.get("steps", [])
        return steps

    @property
    def matrix(self) -> dict[str, Any]:
        matrix: dict[str, Any] = self.body.get("strategy", {}).get("matrix", {})
        return matrix


def parsed(file: Path) -> dict[Any, Any]:
    found = yaml.safe_load(file.read_text())
    assert isinstance(found, dict)
    return found


JOBS: Final = [Job(file.stem, name, body) for file in WORKFLOWS for name, body in parsed(file)["jobs"].items()]
(CI_TESTS,) = (job for job in JOBS if (job.workflow, job.name) == ("ci", "test"))
(NIGHTLY_TESTS,) = (job for job in JOBS if (job.workflow, job.name) == ("nightly", "test"))


def described(job: Job) -> str:
    return f"{job.workflow}.{job.name}"


def scripts(job: Job) -> Iterator[str]:
    """The shell text of the job's steps, with each command that its matrix inserts."""
    yield from (step["run"] for step in job.steps if "run" in step)
    yield from (row["command"] for row in job.matrix.get("include", []) if "command" in row)


def actions(job: Job) -> list[str]:
    return [step["uses"] for step in job.steps if "uses" in step] + ([job.body["uses"]] if "uses" in job.body else [])


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_reads_only_and_runs_once_per_branch(file: Path) -> None:
    workflow = parsed(file)
    assert workflow["permissions"] == {"contents": "read"}
    called = list(workflow[True]) == ["workflow_call"]  # YAML reads the key `on` as true
    assert called or workflow["concurrency"]["group"]
    assert "secrets." not in file.read_text()


@pytest.mark.parametrize("job", JOBS, ids=described)
def test_a_job_has_a_timeout_and_the_least_permissions(job: Job) -> None:
    assert "uses" in job.body or 0 < job.body["timeout-minutes"] <= 180
    writes = {name for name, access in job.body.get("permissions", {}).items() if access == "write"}
    assert writes == WRITES.get((job.workflow, job.name), set())


@pytest.mark.parametrize("job", JOBS, ids=described)
def test_actions_are_pinned_and_checkouts_keep_no_credentials(job: Job) -> None:
    local = [action for action in actions(job) if action.startswith("./")]
    assert [action for action in local if not (ROOT / action).is_file()] == []
    assert [action for action in actions(job) if action not in local and not PINNED.fullmatch(action)] == []
    checkouts = [step for step in job.steps if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("job", JOBS, ids=described)
def test_scripts_use_verbs_that_exist_and_no_text_from_events(job: Job) -> None:
    text = "\n".join(scripts(job))
    for found in re.findall(r"^\s*make (.+)$", text, re.MULTILINE):
        verbs = [word for word in found.split() if re.fullmatch(r"[a-z-]+", word)]
        assert verbs
        assert set(verbs) <= VERBS
    assert set(re.findall(r"\$\{\{ *([\w.]+)", text)) <= {"matrix.command"}


def test_the_classifiers_are_the_versions_of_python_that_are_tested() -> None:
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert {row["python"] for row in CI_TESTS.matrix["include"]} == set(PYTHONS)
    assert NIGHTLY_TESTS.matrix["python"] == PYTHONS


def test_every_major_version_of_postgresql_is_tested() -> None:
    rows = [(row["python"], row["postgres"]) for row in CI_TESTS.matrix["include"]]
    assert {postgres for _, postgres in rows} == set(POSTGRES)
    corners = itertools.product((PYTHONS[0], PYTHONS[-1]), (POSTGRES[0], POSTGRES[-1]))
    assert set(corners) <= set(rows)
    assert NIGHTLY_TESTS.matrix["postgres"] == POSTGRES


def test_one_job_of_ci_waits_for_all_others() -> None:
    jobs = {job.name: job for job in JOBS if job.workflow == "ci"}
    assert set(jobs.pop("ok").body["needs"]) == set(jobs)


def test_only_a_tag_publishes_and_only_after_tests_and_builds() -> None:
    jobs = {job.name: job.body for job in JOBS if job.workflow == "release"}
    for name in ("publish", "release"):
        assert jobs[name]["if"] == "github.ref_type == 'tag'"
    assert {"test", "package", "wheels", "accelerator-source", "image"} <= set(jobs["publish"]["needs"])
    (build,) = (step for step in jobs["image"]["steps"] if step.get("uses", "").startswith("docker/build-push-action@"))
    assert build["with"]["push"] == "${{ github.ref_type == 'tag' }}"
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"
    assert build["with"]["provenance"] == "mode=max"


def test_accelerator_wheels_are_built_for_both_systems_and_architectures() -> None:
    (wheels,) = (job for job in JOBS if (job.workflow, job.name) == ("release", "wheels"))
    built = {(row["runner"].split("-")[0], row["target"]) for row in wheels.matrix["include"]}
    assert built == set(itertools.product(("ubuntu", "macos"), ("x86_64", "aarch64")))
    (build,) = (step for step in wheels.steps if step.get("uses", "").startswith("PyO3/maturin-action@"))
    (feature,) = re.findall(r"--features (\S+)", build["with"]["args"])
    features = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())["features"]
    assert f"pyo3/{feature}-py{PYTHONS[0].replace('.', '')}" in features[feature]


def test_a_release_finds_its_version_everywhere() -> None:
    chart = parsed(ROOT / "deploy" / "helm" / "cdc-publisher" / "Chart.yaml")
    assert {PROJECT["version"], chart["appVersion"]} == {__version__}


def test_the_changelog_has_the_headings_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", one) for one in versions[1:])
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_a_bug_report_asks_for_versions_and_outputs_of_commands_that_exist() -> None:
    form = parsed(GITHUB / "ISSUE_TEMPLATE" / "bug.yml")["body"]
    required = {one["id"] for one in form if one.get("validations", {}).get("required")}
    assert {"version", "postgres", "kafka", "check", "status"} <= required
    labels = " ".join(one["attributes"].get("label", "") for one in form)
    asked = re.findall(r"cdc-publisher ([a-z]+(?: --[a-z]+| [a-z]+)*)", labels)
    assert {"check --json", "status --json"} <= set(asked)
    assert [command for command in asked if shell_lines.problem(command.split())] == []


def test_hooks_before_a_commit_are_verbs_and_download_nothing() -> None:
    repositories = parsed(ROOT / ".pre-commit-config.yaml")["repos"]
    assert {one["repo"] for one in repositories} == {"local"}
    hooks = [hook for one in repositories for hook in one["hooks"]]
    assert all(hook["language"] == "system" for hook in hooks)
    assert {hook["entry"].removeprefix("make ") for hook in hooks} <= VERBS


def test_every_page_of_the_docs_is_in_the_navigation_of_the_site() -> None:
    shown = re.findall(r"^ +- .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = [page.name for page in PAGES if page.parent.name == "docs"]
    assert sorted(name for name in shown if "/" not in name) == sorted(pages)
