"""Runs one instance of a fleet: a loop that sees the folder, the group, the topic and the children, and does what
`cdc.fleet.instance` decides. Nothing in it waits for a server.
"""

import contextlib
import logging
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cdc import __version__
from cdc.config.loading import Given
from cdc.config.settings import Settings
from cdc.delivery.ports import Flag
from cdc.errors import CdcError, ConfigError
from cdc.fleet.child import DRAIN, EXIT, RELOAD, ChildReport
from cdc.fleet.children import Children, Ended
from cdc.fleet.folder import Folder
from cdc.fleet.instance import File, Instance
from cdc.fleet.membership import Membership
from cdc.fleet.readiness import NO_FILE
from cdc.fleet.supervision import Act
from cdc.fleet.topic import FleetTopic
from cdc.fleet.units import Unit, digests
from cdc.kafka.cluster import Cluster
from cdc.quantities import moment, plural
from cdc.status.document import StatusDocument
from cdc.status.fleet import FleetDocument, UnitState, UnitStatus
from cdc.telemetry.health import ALIVE_SECONDS, State
from cdc.telemetry.metrics import Figures

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 0.1
FOLDER_SECONDS: Final = 5.0
VIEW_SECONDS: Final = 1.0
KAFKA_SECONDS: Final = 15.0
"""How long an error of Kafka is shown once the instance has begun: a request is repeated after 10 s."""
TELL_AGAIN_SECONDS: Final = 60.0
"""How often a problem that lasts is logged."""

_ORDERS: Final = {Act.DRAIN: DRAIN, Act.EXIT: EXIT, Act.GIVE_UP: EXIT}
_WORKING: Final = frozenset({State.IDLE, State.STREAMING, State.CATCHING_UP})


class Fleet:
    """One instance, from its start to its end. `stop` and `reload` are set by signals."""

    def __init__(
        self, settings: Settings, defaults: Given, folder: Path, children: Children, stop: Flag, reload: Flag
    ) -> None:
        self._settings = settings
        self._folder = Folder(folder, settings, defaults)
        self._stop = stop
        self._reload = reload
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._instance = Instance(self._name, settings.fleet.session_seconds, random.random)
        self._group = Membership(settings, self._name, self._instance.placement)
        self._topic: FleetTopic | None = None
        self._children = children
        self._units: Mapping[str, Unit] = {}
        self._settings_of: dict[str, Settings] = {}
        self._invalid: dict[str, str] = {}
        self._mark: object = None
        self._read_at = self._viewed_at = float("-inf")
        self._revocations = 0
        self._said: dict[str, ChildReport] = {}
        self._states: dict[str, tuple[bool, str]] = {}  # to be written to the register
        self._starts: Counter[str] = Counter()
        self._told: dict[str, float] = {}  # problems, by when they were logged
        self._kafka, self._kafka_at = "", 0.0  # its last error
        self._turned = time.monotonic()
        self.view: tuple[FleetDocument, dict[str, Figures]] = (self._document(), {})

    def alive(self) -> bool:
        """Whether the loop turns."""
        return time.monotonic() - self._turned < ALIVE_SECONDS

    def run(self) -> int:
        """Run until stopped, and until every child has ended; return the exit code.

        Raises CdcError when the folder or Kafka cannot be used from the beginning.
        """
        self._see()
        self._children.prepare()
        Cluster(self._settings.kafka).reach(self._settings.delivery.startup_seconds)
        self._topic = FleetTopic(self._settings, self._instance.register)
        with contextlib.closing(self._topic):
            while not self._stop.is_set():
                self._turn()
            self._instance.stop()
            self._group.leave()
            codes = self._drained()
        log.info(
            "the instance stopped", extra={"event": "fleet_stopped", "undrained": sum(code != 0 for code in codes)}
        )
        return 75 if any(codes) else 0

    def _turn(self) -> None:
        now = self._turned = time.monotonic()
        if self._reload.is_set():
            self._reload.clear()
            self._read_at = float("-inf")
            for unit in self._instance.supervision.lives:
                self._children.order(unit, RELOAD)
        if now - self._read_at >= FOLDER_SECONDS:
            self._read_at = now
            if self._folder.mark() != self._mark:
                self._see()
        self._attend(now)
        for act, unit in list(self._instance.turn(now)):
            self._do(act, unit)
        for unit, said in self._children.listen(TURN_SECONDS):
            self._hear(unit, said)
        self._show(now)

    def _show(self, now: float) -> None:
        if now - self._viewed_at >= VIEW_SECONDS:
            self._viewed_at = now
            figures = {unit: said.figures for unit, said in self._said.items()}
            self.view = (self._document(), figures)

    def _drained(self) -> list[int]:
        """Drain all children; return their exit codes, and 75 for one that crashed."""
        codes: list[int] = []
        while not self._instance.stopped:
            now = self._turned = time.monotonic()
            for act, unit in list(self._instance.turn(now)):
                self._do(act, unit)
            for unit, said in self._children.listen(TURN_SECONDS):
                self._hear(unit, said)
                if isinstance(said, Ended):
                    codes.append(0 if said.code in (0, 1, 78) else 75)
            self._show(now)
        return codes

    def end_at_once(self) -> None:
        """End all children as after kill -9."""
        for unit in list(self._instance.supervision.lives):
            self._children.order(unit, EXIT)

    def _see(self) -> None:
        """Read the folder; one that cannot be read any more changes nothing."""
        mark = self._folder.mark()
        try:
            self._units = self._folder.units()
        except ConfigError as error:
            if self._mark is None:
                raise
            self._tell(str(error))
            return
        self._mark = mark
        before = (self._settings_of, self._invalid)
        self._settings_of = {name: unit.settings for name, unit in self._units.items() if unit.settings}
        found = digests(self._units)
        files = {
            name: File(found[name], settings.delivery.drain_seconds) for name, settings in self._settings_of.items()
        }
        self._invalid = invalid = {
            name: "; ".join(unit.problems) for name, unit in self._units.items() if not unit.settings
        }
        self._instance.see(files, invalid)
        if before == (self._settings_of, invalid):
            return
        log.info("read the folder", extra={"event": "fleet_folder", "units": len(files), "invalid": len(invalid)})
        for name, problem in invalid.items():
            self._tell(f"unit {name}: {problem}")

    def _attend(self, now: float) -> None:
        """Hear the group and the topic. What they refuse is reported, and tried again."""
        assert self._topic is not None
        placement, register = self._instance.placement, self._instance.register
        if now - self._kafka_at >= KAFKA_SECONDS and placement.joined and register.complete:
            self._kafka = ""
        elif self._kafka:
            self._tell(self._kafka)  # librdkafka reports a missing right once
        try:
            if self._topic.topic_id:
                self._group.poll()
            if placement.revocations != self._revocations:
                self._revocations = placement.revocations
                self._topic.doubt()
            self._topic.read()
            states = {unit: said for unit, said in self._states.items() if register.complete}
            same = self._topic.look(self._instance.plan(now), len(self._settings_of) + 1, states, now)
            if same is not None:
                placement.topic(same=same)
                for unit, said in states.items():
                    if self._states.get(unit) == said:
                        del self._states[unit]
        except ConfigError:
            raise  # by the properties in [kafka]: no retry fixes them
        except CdcError as error:
            self._kafka, self._kafka_at = str(error), now
            self._tell(self._kafka)

    def _do(self, act: Act, unit: str) -> None:
        if act is Act.START:
            self._starts[unit] += 1
            log.info("unit starts", extra={"event": "unit_starts", "unit": unit})
            self._children.start(unit, self._settings_of[unit])
        elif act is Act.KILL:
            log.warning("unit does not end, and is killed", extra={"event": "unit_killed", "unit": unit})
            self._children.kill(unit)
        else:
            if act is Act.GIVE_UP:
                log.warning(
                    "this instance does not reach Kafka, and leaves the unit to another one",
                    extra={"event": "unit_given_up", "unit": unit},
                )
            else:
                log.info("unit ends", extra={"event": "unit_ends", "unit": unit, "how": act.value})
            self._children.order(unit, _ORDERS[act])

    def _hear(self, unit: str, said: ChildReport | Ended) -> None:
        now = time.monotonic()
        if isinstance(said, ChildReport):
            self._said[unit] = said
            document = said.document
            sessions = document.publisher.sessions if document.publisher else 0
            works = document.state in _WORKING and bool(sessions)
            word = self._instance.saw(unit, now, works=works, blocked_by_kafka=document.state == State.BLOCKED_BY_KAFKA)
        else:
            self._said.pop(unit, None)
            drained = self._instance.supervision.lives[unit].draining_since is not None
            pause, word = self._instance.ended(unit, said.code, said.why, now)
            if drained:
                log.info("unit ended", extra={"event": "unit_ended", "unit": unit, "exit_code": said.code})
            else:
                self._mark, self._read_at = (), float("-inf")  # a secret may have changed, which is no file of a unit
                log.warning(
                    "unit failed: %s",
                    said.why or "it ended by itself",
                    extra={
                        "event": "unit_failed",
                        "unit": unit,
                        "exit_code": said.code,
                        "retry_in_seconds": round(pause, 2),
                    },
                )
        if word is not None:
            self._states[unit] = (word, self._name)

    def _tell(self, problem: str) -> None:
        """Log a problem, once a minute while it lasts."""
        now = time.monotonic()
        if now - self._told.get(problem, float("-inf")) >= TELL_AGAIN_SECONDS:
            self._told[problem] = now
            log.error("%s", problem, extra={"event": "fleet_problem"})

    def _document(self) -> FleetDocument:
        instance, now = self._instance, time.monotonic()
        placement, register = instance.placement, instance.register
        blocking = instance.readiness.problems(now)
        for problem in blocking:
            self._tell(problem)
        invalid = [f"unit {unit.name}: {problem}" for unit in self._units.values() for problem in unit.problems]
        failing = [f"unit {unit}: {why}" for unit, why in sorted(instance.readiness.failing.items())]
        problems = list(dict.fromkeys([*blocking, *filter(None, [self._kafka]), *invalid, *failing]))
        begun = placement.joined and register.complete
        joined = begun and not placement.lost
        names = sorted({*register.partitions, *self._units})
        units = {name: self._unit(name) for name in names}
        here = sum(unit.state not in (UnitState.ELSEWHERE, UnitState.UNREGISTERED) for unit in units.values())
        if blocking:
            summary = f"not ready: {blocking[0]}"
        elif self._stop.is_set():
            summary = "not ready: stopping"
        elif not begun:
            summary = f"not ready: {self._kafka or 'waiting for the first assignment'}"
        else:
            summary = f"{plural(here, 'unit')} of {len(units)} here" + ("" if joined else "; the group is away")
        return FleetDocument.model_construct(
            version=__version__,
            time=moment(time.time()),
            fleet=self._settings.fleet.name,
            instance=self._name,
            pid=os.getpid(),
            ready=begun and not blocking and not self._stop.is_set(),
            joined=joined,
            summary=summary,
            problems=problems,
            units=units,
        )

    def _unit(self, name: str) -> UnitStatus:
        instance = self._instance
        partition = instance.register.partitions.get(name)
        said, life = self._said.get(name), instance.supervision.lives.get(name)
        state, summary = UnitState.ELSEWHERE, ""
        document: StatusDocument | None = said.document if said else None
        unit = self._units.get(name)
        if life is not None and life.draining_since is not None:
            state = UnitState.DRAINING
        elif name in instance.readiness.failing:
            state, summary = UnitState.FAILED, instance.readiness.failing[name]
        elif life is not None:
            state, summary = _state(document)
        elif partition is None:
            state, summary = UnitState.UNREGISTERED, "; ".join(unit.problems) if unit else ""
        elif name in instance.placed:
            state, summary = (UnitState.WAITING, "") if unit else (UnitState.NO_FILE, NO_FILE)
        return UnitStatus.model_construct(
            partition=partition,
            state=state,
            summary=summary,
            pid=self._children.pid(name),
            restarts=max(self._starts[name] - 1, 0),
            status=document,
        )


def _state(document: StatusDocument | None) -> tuple[UnitState, str]:
    if document is None or document.state == State.STARTING:
        return UnitState.STARTING, ""
    if document.state == State.STANDBY:
        return UnitState.STANDBY, document.summary
    return (UnitState.WORKING if document.state in _WORKING else UnitState.WAITING), document.summary


def on_signals(stop: Flag, reload: Flag, at_once: Callable[[], None]) -> None:
    """Set `stop` at the first SIGTERM or SIGINT; exit at once at the second. SIGHUP sets `reload`."""

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            at_once()
            os._exit(128 + number)
        log.info("stopping", extra={"event": "stopping", "signal": signal.Signals(number).name})
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
