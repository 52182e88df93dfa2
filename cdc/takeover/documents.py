"""Reads documents with configurations: JSON, YAML, or properties of Java."""

import json
import re
from typing import Any

from cdc.errors import ConfigError
from cdc.takeover import connector
from cdc.takeover.connector import Configuration, properties


def parse(text: str, origin: str) -> Configuration:
    """Return the configuration in a text that comes from `origin`. Raises ConfigError."""
    return connector.configuration(_document(text, origin), origin)


def parse_worker(text: str, origin: str) -> dict[str, str]:
    """Return the properties of a worker in a text. Raises ConfigError."""
    return connector.worker(_document(text, origin), origin)


def _document(text: str, origin: str) -> dict[str, Any]:
    stripped = text.lstrip("\ufeff \t\r\n")
    if stripped.startswith("{"):
        try:
            read = json.loads(stripped)
        except ValueError as error:
            raise ConfigError(f"{origin} is not valid JSON: {error}") from None
    elif re.search(r"(?m)^kind\s*:", stripped):
        read = _yaml(stripped, origin)
    else:
        read = dict(properties(stripped))
    if not isinstance(read, dict) or not read:
        raise ConfigError(f"{origin} has no configuration of a connector", hint=connector.FORMS)
    return read


def _yaml(text: str, origin: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigError(
            f"{origin} is YAML, and the package PyYAML is not installed",
            hint="pip install 'cdc-publisher[takeover]', or give the configuration as JSON",
        ) from None
    try:
        documents = [each for each in yaml.safe_load_all(text) if isinstance(each, dict)]
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not valid YAML: {error}") from None
    wanted = [each for each in documents if each.get("kind") in ("KafkaConnector", "KafkaConnect")] or documents
    if len(wanted) != 1:
        names = ", ".join(str((each.get("metadata") or {}).get("name")) for each in wanted)
        raise ConfigError(f"{origin} has {len(wanted)} resources: {names}", hint="give one connector")
    return wanted[0]
