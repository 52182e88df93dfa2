"""The status of an instance of a fleet and of its units: served at `/status`, read by `fleet status`."""

from enum import StrEnum
from typing import Any

import orjson
from pydantic import Field, ValidationError

from cdc.status.document import Count, Part, Sentence, StatusDocument, Word


class UnitState(StrEnum):
    """States of a unit, as an instance sees it."""

    WORKING = "working"
    STANDBY = "standby"  # its slot is read elsewhere
    STARTING = "starting"
    WAITING = "waiting"  # for a server, or for the next attempt
    DRAINING = "draining"
    FAILED = "failed"  # until an operator acts
    NO_FILE = "no_file"  # placed here, where the folder has no such file
    ELSEWHERE = "elsewhere"  # placed in another instance, or in none
    UNREGISTERED = "unregistered"  # in the folder, and not yet in the register


class UnitStatus(Part):
    """One unit; `status` is that of its publisher, while it has a child here."""

    partition: Count | None = None
    state: UnitState
    summary: Sentence = ""
    pid: int | None = None
    restarts: Count = 0
    status: StatusDocument | None = None


class FleetDocument(Part):
    """The status of one instance."""

    version: Word
    time: Word
    fleet: Word
    instance: Word
    pid: int | None = None
    ready: bool
    joined: bool
    summary: Sentence
    problems: list[Sentence] = Field(default=[], max_length=10_000)
    units: dict[Word, UnitStatus] = Field(default={}, max_length=10_000)

    def served(self) -> dict[str, Any]:
        """The JSON object of `/status`, in the order of the fields."""
        document = self.model_dump(mode="json", exclude={"units"})
        document["units"] = {
            name: {
                **unit.model_dump(mode="json", exclude={"status"}),
                "status": unit.status.served() if unit.status else None,
            }
            for name, unit in self.units.items()
        }
        return document


def parse(body: bytes) -> FleetDocument:
    """Check a body. Raises ValueError, with a phrase, when it is not that of an instance of a fleet."""
    try:
        return FleetDocument.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError:
        raise ValueError("the answer is not JSON") from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"][:3])[:60]
        raise ValueError(f"the answer is not that of an instance of a fleet ({where}: {problem['msg']})") from None
