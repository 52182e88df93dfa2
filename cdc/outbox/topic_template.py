"""Topic names from a template such as `outbox.event.{aggregatetype}`, filled with the columns of a row.

Single aggregate types may have a topic of their own, which is looked up by the aggregate column.
"""

import re
import string
from collections.abc import Callable, Mapping

from cdc.errors import ConfigError

# org.apache.kafka.common.internals.Topic: these characters, at most 249, and not "." or "..".
_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def is_topic_name(name: str) -> bool:
    """Return whether Kafka accepts `name` as a topic name."""
    return bool(_NAME.fullmatch(name)) and name not in {".", ".."}


class TopicTemplate:
    """A template with `{column}` placeholders. Raises ConfigError if it is malformed or cannot yield a valid name.

    `by_aggregate` holds the topics of aggregate types that do not take the template; `aggregate` is their column.
    """

    def __init__(
        self, template: str, by_aggregate: Mapping[str, str] | None = None, aggregate: str = "aggregatetype"
    ) -> None:
        self.template = template
        self._by_aggregate = dict(by_aggregate or {})
        self._aggregate = aggregate
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
        first = [aggregate] if self._by_aggregate else []
        self.columns = tuple(dict.fromkeys([*first, *columns]))
        """What decides about the topic: names as `Columns.resolve` takes them."""
        fixed = [] if columns else [template]
        self.known = [*fixed, *self._by_aggregate.values()]
        """The topics that are known without a row; all there are, when no column is in the template."""
        if not is_topic_name(self._filled(lambda _: "x") or ""):
            raise ConfigError(
                f"topic template {template!r} does not yield a valid topic name",
                hint="use letters, digits, '.', '_' and '-' around the placeholders, at most 249 characters",
            )

    @property
    def fixed(self) -> str | None:
        """The topic, if there is only one."""
        return None if self.columns else self.template

    @property
    def pattern(self) -> str:
        """The regular expression of all topics that rows may go to."""
        parts = (re.escape(literal) + ("" if field is None else ".+") for literal, field in self._parts)
        return f"(?:{'|'.join([''.join(parts), *map(re.escape, self._by_aggregate.values())])})"

    @property
    def tells(self) -> bool:
        """Whether the template has text beside its columns, so that it cannot make the name of any topic."""
        return any(literal for literal, _ in self._parts)

    def fill(self, value: Callable[[str], str | None]) -> str | None:
        """Return the topic of a row, whose text in a column `value` returns; None if one that is needed is null.

        Only what is needed is asked for.
        """
        own = self._by_aggregate.get(value(self._aggregate) or "") if self._by_aggregate else None
        return own or self._filled(value)

    def _filled(self, value: Callable[[str], str | None]) -> str | None:
        made = ""
        for literal, field in self._parts:
            text = "" if field is None else value(field)
            if text is None:
                return None
            made += literal + text
        return made
