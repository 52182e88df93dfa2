"""A connector's options while they are translated: which were asked for, and which are left."""

import re
from typing import Any, Final

from cdc.config.masking import MASK, masked
from cdc.takeover.connector import PLACEHOLDER, Configuration
from cdc.takeover.verdicts import Line, Reference, Supports, Translation, Verdict

_LONGEST: Final = 100  # characters of a value that are shown
_SECRET: Final = re.compile(r"user\.info$|api\.?key|(?:access|private|sas)\.?key", re.IGNORECASE)
_MISSING: Final = "(not set)"


class Options:
    """Hands out options, and takes a verdict on each into `result`."""

    def __init__(self, configuration: Configuration, supports: Supports) -> None:
        self.configuration = configuration
        self.supports = supports
        self.result = Translation(configuration.name)
        self.router = ""  # the prefix of the event router's options
        self.asked: list[str] = []
        self._left = dict(configuration.options)

    def get(self, name: str, default: str = "") -> str:
        """Return the value of an option, without white space around it."""
        if name not in self.asked:
            self.asked.append(name)
        return self.configuration.options.get(name, default).strip()

    def has(self, name: str) -> bool:
        """Return whether an option is given and not empty."""
        return bool(self.get(name))

    def left(self) -> list[str]:
        """Return the options without a verdict, in the order of the configuration."""
        return list(self._left)

    def say(self, verdict: Verdict, name: str, text: str, *, missing: bool = False) -> None:
        """Give a verdict on an option; with `missing`, also if it is not given."""
        is_given = self._left.pop(name, None) is not None
        if is_given or missing:
            self.result.lines.append(Line(name, self._shown(name) if is_given else _MISSING, verdict, text))

    def _shown(self, name: str) -> str:
        given = MASK if _SECRET.search(name) else masked(name, self.configuration.options[name])
        value = " ".join(str(given).split())
        return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."

    def plain(self, name: str) -> bool:
        """Return whether an option has no placeholder; else refuse it."""
        found = PLACEHOLDER.search(self.get(name))
        # The topic's replacement has references to groups of the regular expression, which look the same.
        if found is None or name.endswith("route.topic.replacement"):
            return True
        self.say("refused", name, f"a placeholder: give its value with --set {name}=VALUE")
        return False

    def number(self, name: str) -> bool:
        """Return whether an option is a whole number; else refuse it."""
        if not self.plain(name):
            return False
        if self.get(name).removeprefix("-").isdigit():
            return True
        self.say("refused", name, "not a number")
        return False

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return an option that is true or false."""
        return self.get(name, str(default)).lower() == "true"

    def refer(self, variable: str, reason: str) -> None:
        """Note a value that comes from the environment."""
        self.result.references.append(Reference(variable, reason))

    def setting(
        self,
        option: str,
        section: str,
        name: str,
        default: str = "",
        *,
        value: Any = None,
        verdict: Verdict = "translated",
        text: str = "",
        missing: bool = True,
    ) -> bool:
        """Translate an option into a setting; refuse it if this version has no such setting.

        `value` replaces the option's own, and `default` is Debezium's. Without `missing`, an option that is not given
        has no setting. Returns whether it was translated.
        """
        if not self.plain(option):
            return False
        if not missing and option not in self._left:
            return False
        if not self.supports(section, name):
            lacking = f"needs the setting [{section}] {name}, which this version does not have"
            self.say("refused", option, lacking, missing=missing)
            return False
        chosen = self.get(option, default) if value is None else value
        self.result.put(section, name, chosen)
        shown = f'[{section}] {name} = "{chosen}"' if isinstance(chosen, str) else f"[{section}] {name}"
        self.say(verdict, option, f"{shown}: {text}" if text else shown, missing=missing)
        return True
