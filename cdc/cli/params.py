"""Parameter types of several commands: times, durations, LSNs, positions and URLs."""

import re
import time
from datetime import UTC, datetime
from typing import Any, Final

import click

from cdc.lsn import LSN
from cdc.records.headers import Position

_AGE = re.compile(r"(\d+)([smhd])")
_DURATION = re.compile(r"(\d{1,6})([smhd])|0")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST: Final = 36_500 * 86_400


class Moment(click.ParamType[int]):
    """A time in ISO 8601, or an age such as 12h; converts to milliseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        age = _AGE.fullmatch(value)
        if age:
            return int((time.time() - int(age[1]) * _SECONDS[age[2]]) * 1000)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither a time such as 2026-01-31T10:00 nor an age such as 90m, 12h or 7d", param, ctx
            )
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


class Duration(click.ParamType[float]):
    """A duration such as 30s, 15m, 12h or 7d; converts to seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        given = _DURATION.fullmatch(value)
        if given is None:
            self.fail(f"{value!r} is not a duration such as 30s, 15m, 12h, 7d or 0", param, ctx)
        seconds = float(int(given[1]) * _SECONDS[given[2]]) if given[1] else 0.0
        if seconds > _LONGEST:
            self.fail(f"{value!r} is more than a hundred years", param, ctx)
        return seconds


class LsnType(click.ParamType[LSN]):
    """An LSN such as 16/B374D848."""

    name = "lsn"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> LSN:
        try:
            return value if isinstance(value, LSN) else LSN.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class PositionType(click.ParamType[str]):
    """The position of an event, as the header cdc-position has it."""

    name = "position"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if Position.parse(str(value)) is None:
            example = "0badcafe-00000000016B3748-00000000"
            self.fail(f"{value!r} is not the position of an event, such as {example}", param, ctx)
        return str(value)


class Url(click.ParamType[str]):
    """The URL of a publisher's status endpoint."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from cdc.status import client  # a slow import, which `start` does not need

        try:
            return client.checked(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
