"""`completion`: the script completes commands, options and settings."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COMPLETE = """
source <(cdc-publisher completion bash)
COMP_WORDS=({words})
COMP_CWORD={index}
_cdc_publisher_completion cdc-publisher
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(*words: str) -> list[str]:
    """What bash offers for the last of the words."""
    script = COMPLETE.format(words=" ".join(f"'{word}'" for word in ("cdc-publisher", *words)), index=len(words))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


def test_bash_completes_commands_and_those_of_a_group() -> None:
    assert completed("st") == ["start", "status"]
    assert completed("slot", "") == ["advance", "create", "drop", "list"]


def test_bash_completes_options_and_their_values() -> None:
    assert "--accept-changes" in completed("start", "--")
    assert completed("--log-format", "") == ["text", "json"]


def test_bash_completes_names_of_settings() -> None:
    assert completed("--set", "postgres.sl") == ["postgres.slot="]
    assert "kafka.bootstrap.servers=" in completed("--set", "kafka.b")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_valid(shell: str) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "cdc", "completion", shell], capture_output=True, text=True, check=True
    ).stdout
    assert "_CDC_PUBLISHER_COMPLETE" in made
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=made, text=True, check=True)
