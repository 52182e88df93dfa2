"""Topic names from a template such as `outbox.event.{aggregatetype}`, filled with the columns of a row."""

import re
import string
from collections.abc import Mapping

from cdc.errors import ConfigError

# org.apache.kafka.common.internals.Topic: these characters, at most 249, and not "." or "..".
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def is_topic_name(name: str) -> bool:
    """Return whether Kafka accepts `name` as a topic name."""
    return bool(_NAME.fullmatch(name)) and name not in {".", ".."}


class TopicTemplate:
    """A template with `{column}` placeholders. Raises ConfigError if it is malformed or cannot yield a valid name."""

    def __init__(self, template: str) -> None:
        self.template = template
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ConfigError(f"topic template {template!r}: {error}") from None
        columns: list[str] = []
        for _, field, format_spec, conversion in parts:
            if field is None:
                continue
            if not field or format_spec or conversion:
                raise ConfigError(
                    f"topic template {template!r}: a placeholder must be a column name in braces, such as {{type}}"
                )
            columns.append(field)
        self._parts = [(literal, field) for literal, field, _, _ in parts]
        self.columns = tuple(dict.fromkeys(columns))
        if not is_topic_name(self.fill(dict.fromkeys(self.columns, "x"))):
            raise ConfigError(
                f"topic template {template!r} does not yield a valid topic name",
                hint="use letters, digits, '.', '_' and '-' around the placeholders, at most 249 characters",
            )

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the topic for one row; `values` maps column names to text."""
        return "".join([literal + (values[field] if field is not None else "") for literal, field in self._parts])
