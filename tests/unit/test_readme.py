"""What the README says of settings and commands is what there is."""

from pathlib import Path

import pytest

from cdc.cli.main import COMMANDS
from cdc.config.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (section, name)
        for section, field in Settings.model_fields.items()
        for name in getattr(field.annotation, "model_fields", {})
    ],
)
def test_every_setting_is_in_the_readme(section: str, name: str) -> None:
    assert f"`[{section}] " in README
    assert f"`{name}`" in README or f"`[{section}] {name}`" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"| `{command}" in README
