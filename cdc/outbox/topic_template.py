"""Topic names: a template such as `outbox.event.{aggregatetype}` over the columns of a row."""

import re
import string
from collections.abc import Mapping

from cdc.errors import ConfigError

# org.apache.kafka.common.internals.Topic: these characters, at most 249, and not "." or "..".
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def is_topic_name(name: str) -> bool:
    """Whether Kafka takes `name` as a topic's name."""
    return bool(_NAME.fullmatch(name)) and name not in {".", ".."}


class TopicTemplate:
    """A template with `{column}` placeholders. Raises ConfigError when it is malformed or names nothing valid."""

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
                    f"topic template {template!r}: a placeholder is a column's name in braces, as in {{type}}"
                )
            columns.append(field)
        self.columns = tuple(dict.fromkeys(columns))
        if not is_topic_name(self.fill(dict.fromkeys(self.columns, "x"))):
            raise ConfigError(
                f"topic template {template!r} does not make a valid topic name",
                hint="use letters, digits, '.', '_' and '-' around the placeholders, at most 249 characters",
            )

    def fill(self, values: Mapping[str, str]) -> str:
        """The topic for one row's column values."""
        return "".join(
            literal + (values[field] if field is not None else "")
            for literal, field, _, _ in string.Formatter().parse(self.template)
        )
