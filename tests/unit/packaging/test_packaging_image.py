"""The image, as far as its Dockerfile can be judged without an engine."""

import http.server
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import yaml

from cdc import __version__
from cdc.cli.main import COMMANDS
from cdc.config.loading import load
from tests import ROOT

HEALTHCHECK: Final = ROOT / "docker" / "healthcheck.py"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = (line.partition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return [(name, arguments.strip()) for name, _, arguments in lines]


def last_stage() -> list[tuple[str, str]]:
    """What makes the image itself."""
    all_of_it = instructions()
    return all_of_it[max(index for index, (name, _) in enumerate(all_of_it) if name == "FROM") :]


def variables() -> dict[str, str]:
    (given,) = (arguments for name, arguments in last_stage() if name == "ENV")
    return dict(pair.split("=", 1) for pair in given.split())


def test_it_copies_only_what_exists_and_what_the_context_has() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    assert "*" in ignore
    stages: list[str] = []
    for name, arguments in instructions():
        if name == "FROM":
            stages += re.findall(r" AS ([\w-]+)$", arguments)
        if name != "COPY":
            continue
        *sources, _ = arguments.split()
        if sources[0].startswith("--from="):
            assert sources[0].removeprefix("--from=") in stages
            continue
        for source in sources:
            assert (ROOT / source).exists()
            assert f"!{source.split('/')[0]}" in ignore


def test_each_choice_of_an_accelerator_is_a_stage() -> None:
    stages = re.findall(r" AS accelerator-(\w+)$", "\n".join(a for n, a in instructions() if n == "FROM"), re.MULTILINE)
    (default,) = (a.removeprefix("ACCELERATOR=") for n, a in instructions() if n == "ARG" and "ACCELERATOR=" in a)
    assert set(stages) == {"native", "python"}
    assert default in stages


def test_rust_is_new_enough_for_the_accelerator() -> None:
    (rust,) = (a.removeprefix("RUST=") for n, a in instructions() if n == "ARG" and a.startswith("RUST="))
    needed = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())["package"]["rust-version"]
    assert [int(part) for part in rust.split("-")[0].split(".")] >= [int(part) for part in needed.split(".")]


def test_what_is_installed_from_outside_is_locked_by_hash_and_compiles_nothing() -> None:
    installs = [a for name, a in instructions() if name == "RUN" and " install " in a and "pip" in a]
    (locked,) = (a for a in installs if "--requirement docker/requirements.txt" in a)
    assert {"--require-hashes", "--only-binary :all:"} <= set(re.findall(r"--require-hashes|--only-binary \S+", locked))
    assert all("--no-deps" in each for each in installs if each is not locked)
    lock = (ROOT / "docker" / "requirements.txt").read_text()
    pins = re.findall(r"^[a-z0-9.-]+==\S+ \\\n    --hash=sha256:", lock, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[a-z]", lock, re.MULTILINE)) > 10


def test_it_is_small_and_runs_the_program_without_root() -> None:
    last = last_stage()
    given = dict(last)
    assert "-slim" in "".join(a for n, a in instructions() if n == "ARG" and a.startswith("PYTHON="))
    assert min(map(int, given["USER"].split(":"))) > 0
    assert given["STOPSIGNAL"] == "SIGTERM"
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(given["ENTRYPOINT"])[0] in scripts
    assert json.loads(given["CMD"])[0] in COMMANDS
    runs = [arguments for name, arguments in last if name == "RUN"]
    assert any("pip uninstall" in each for each in runs)
    assert not any(word in each for each in runs for word in ("apt", "gcc", "pip install"))


def test_its_label_is_the_version_and_its_environment_is_settings() -> None:
    versions = {a for name, a in last_stage() if name == "ARG" and a.startswith("VERSION=")}
    assert versions == {f"VERSION={__version__}"}
    settings = load(environ={name: value for name, value in variables().items() if name.startswith("CDC_")})
    assert settings.http.listen == f"0.0.0.0:{dict(last_stage())['EXPOSE']}"


def test_the_scripts_that_are_run_in_it_are_in_it() -> None:
    copied = {
        f"{arguments.split()[-1]}{Path(source).name}"
        for name, arguments in last_stage()
        if name == "COPY"
        for source in arguments.split()[:-1]
        if source.startswith("docker/")
    }
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    chart = (ROOT / "deploy" / "helm" / "cdc-publisher" / "templates" / "setup.yaml").read_text()
    words = json.dumps([[s.get("entrypoint"), s.get("healthcheck")] for s in services]) + chart
    words += dict(last_stage())["HEALTHCHECK"]
    assert set(re.findall(r"/opt/cdc/\w+\.py", words)) == copied


@contextmanager
def answering(status: int, host: str = "127.0.0.1") -> Iterator[int]:
    """A server whose every answer has this status; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(f"{self.path} for {self.headers['Accept']}".encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.HTTPServer((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_is_readiness_in_its_own_words(status: int, code: int) -> None:
    with answering(status) as port:
        done = checked(f"0.0.0.0:{port}")
    assert (done.returncode, done.stdout) == (code, "/readyz for text/plain\n")


def test_the_health_check_says_when_nobody_answers() -> None:
    with answering(200) as port:
        pass
    done = checked(f"0.0.0.0:{port}")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"no answer at 0.0.0.0:{port}: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", "0.0.0.0", "[::]", ""])
def test_case_h15_the_health_check_asks_where_the_publisher_listens(host: str) -> None:
    with answering(200, "127.0.0.2" if host == "127.0.0.2" else "127.0.0.1") as port:
        assert checked(f"{host}:{port}").returncode == 0


def test_case_h15_the_health_check_reads_the_settings_file_where_the_variable_is_empty(tmp_path: Path) -> None:
    with answering(200) as port:
        (tmp_path / "cdc-publisher.toml").write_text(f'[http]\nlisten = "127.0.0.1:{port}"\n')
        assert checked("", tmp_path).returncode == 0
    assert checked("", tmp_path).returncode == 1


def test_case_h15_without_an_endpoint_there_is_nothing_to_check(tmp_path: Path) -> None:
    done = checked("", tmp_path)
    assert (done.returncode, done.stdout) == (0, "[http] listen is not set: nothing to ask\n")


def checked(listen: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the health check with this `CDC_HTTP__LISTEN`, where the image would: beside the settings file."""
    command = [sys.executable, "-I", str(HEALTHCHECK)]
    return subprocess.run(
        command, env={"CDC_HTTP__LISTEN": listen}, cwd=folder, capture_output=True, text=True, check=False
    )
