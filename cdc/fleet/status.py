"""The status of a whole fleet: the register and the group's members from Kafka, states from the instances asked."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from cdc.config.settings import Settings
from cdc.fleet.topic import read_register
from cdc.kafka.cluster import Cluster
from cdc.lsn import LSN
from cdc.quantities import size
from cdc.status import client
from cdc.status.client import NoAnswer
from cdc.status.fleet import FleetDocument, UnitState

_BAD = frozenset({UnitState.FAILED, UnitState.NO_FILE})
_WELL = frozenset({UnitState.WORKING, UnitState.STANDBY})


@dataclass(slots=True)
class UnitLine:
    """A unit: its partition, the instance that has it, and what that says of it."""

    unit: str
    partition: int | None
    instance: str = ""
    host: str = ""
    state: str = ""  # empty where the instance was not asked
    summary: str = ""
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    events_per_second: float | None = None
    confirmed: str | None = None

    def cells(self, lsn: LSN | None = None) -> tuple[str, ...]:
        """The cells of its row; with how far its slot is from an LSN, if one is given."""
        distance = () if lsn is None else (self._distance(lsn),)
        return (
            self.unit,
            "-" if self.partition is None else str(self.partition),
            self.instance or "none",
            self.state.replace("_", " ") or ("unknown" if self.instance else "without an instance"),
            "-" if self.lag_bytes is None else size(self.lag_bytes),
            "-" if self.events_per_second is None else f"{self.events_per_second:,.1f}",
            *distance,
            self.summary,
        )

    def _distance(self, lsn: LSN) -> str:
        try:
            left = lsn - LSN.parse(self.confirmed or "")
        except ValueError:  # unknown
            return "-"
        return f"{size(left)} left" if left > 0 else "reached"


@dataclass(slots=True)
class Survey:
    """Every unit, and what could not be found out."""

    fleet: str
    units: list[UnitLine] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 well, 1 a unit needs an operator, 75 a unit has no instance or does not work."""
        if any(unit.state in _BAD for unit in self.units):
            return 1
        return 75 if any(not unit.instance or (unit.state and unit.state not in _WELL) for unit in self.units) else 0

    def facts(self) -> dict[str, Any]:
        """The JSON object."""
        units = [
            {**asdict(unit), "instance": unit.instance or None, "state": unit.state or None} for unit in self.units
        ]
        return {"fleet": self.fleet, "instances": self.members, "units": units, "notes": self.notes}


def survey(settings: Settings, urls: Sequence[str], seconds: float) -> Survey:
    """Ask Kafka and the instances. Raises CdcError when Kafka does not answer."""
    found = Survey(settings.fleet.name)
    register = read_register(settings, seconds)
    if register is None:
        found.notes.append(f"topic {settings.fleet.topic!r} does not exist: no instance was ever started")
        return found
    lines = {unit: UnitLine(unit, partition) for unit, partition in sorted(register.partitions.items())}
    members = Cluster(settings.kafka).group_members(settings.fleet.topic, seconds)
    found.members = sorted({member.client_id for member in members})
    for member in members:
        for line in lines.values():
            if (settings.fleet.topic, line.partition) in member.partitions:
                line.instance, line.host = member.client_id, member.host
    for url in urls or _own(settings, found.notes):
        try:
            _add(lines, client.ask_fleet(url))
        except NoAnswer as silence:
            found.notes.append(str(silence))
    found.units = sorted(lines.values(), key=lambda line: line.unit)
    return found


def _own(settings: Settings, notes: list[str]) -> list[str]:
    """Return the URL of the instance on this machine, if its settings say where it listens."""
    if settings.http.listen is None:
        return []
    try:
        return [client.url_of(settings.http.listen)]
    except NoAnswer as silence:
        notes.append(f"{silence}; name instances with --url")
        return []


def _add(lines: dict[str, UnitLine], document: FleetDocument) -> None:
    for name, unit in document.units.items():
        if unit.state == UnitState.ELSEWHERE:
            continue
        line = lines.setdefault(name, UnitLine(name, unit.partition))
        if line.instance not in ("", document.instance) and unit.state == UnitState.DRAINING:
            continue  # the new owner has more to say
        if unit.state != UnitState.UNREGISTERED:
            line.instance = line.instance or document.instance
        line.state, line.summary = unit.state, unit.summary
        if unit.status is not None:
            line.lag_bytes, line.lag_seconds = unit.status.lag.bytes, unit.status.lag.seconds
            line.events_per_second = unit.status.rate.events_per_second
            line.confirmed = unit.status.slot.confirmed
