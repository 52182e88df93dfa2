"""The scripts of the image, with a real publisher."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from cdc.local.ports import Ports
from tests import ROOT
from tests.pipeline import Pipeline, eventually

DOCKER: Final = ROOT / "docker"


def script(name: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run it where the image would: beside the settings, the program on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, str(DOCKER / name)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_setup_creates_what_is_missing_and_the_publisher_becomes_healthy(
    bare_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bare_pipeline.configure().parent
    first = script("setup.py", folder)
    assert first.returncode == 0, first.stderr
    assert "created table public.outbox" in first.stdout
    assert f"created slot {bare_pipeline.slot}" in first.stdout
    again = script("setup.py", folder)
    assert (again.returncode, "created" in again.stdout) == (0, False)
    assert f"slot {bare_pipeline.slot} exists already" in again.stdout

    monkeypatch.setenv("CDC_HTTP__LISTEN", f"127.0.0.1:{Ports(folder / 'ports.json').get('http')}")
    assert script("healthcheck.py", folder).returncode == 1
    publisher = bare_pipeline.start()
    eventually(lambda: script("healthcheck.py", folder).returncode == 0, "the container is healthy")
    assert script("healthcheck.py", folder).stdout.startswith(("idle", "streaming"))
    assert publisher.stop() == 0


def test_setup_exits_with_the_code_of_the_failed_command(
    bare_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bare_pipeline.configure().parent
    monkeypatch.setenv("CDC_POSTGRES__DSN", "postgresql://127.0.0.1:1/nothing")
    assert script("setup.py", folder).returncode == 75


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="a PID namespace needs root")
def test_case_h15_sigterm_during_the_imports_ends_the_first_process_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        # The first module that is imported after `cdc.__main__` has begun stands still, as on a slow machine.
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'cdc.cli': print('importing', flush=True); time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-m", "cdc", "start"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "importing\n"
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
