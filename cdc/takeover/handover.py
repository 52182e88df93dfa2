"""What taking over a slot and giving it back share: publishing until the slot has passed an LSN, and waiting."""

import contextlib
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cdc.app.connections import Clock, Servers
from cdc.app.contracts import Schemas
from cdc.config.settings import Settings
from cdc.delivery.service import Service
from cdc.errors import CdcError, Temporary
from cdc.lsn import LSN
from cdc.postgres import slots
from cdc.postgres.connection import Conn, connect, query
from cdc.records.fastpath import select as accelerator
from cdc.takeover.connect_rest import ConnectError, ConnectRest
from cdc.takeover.connector import Configuration
from cdc.telemetry.metrics import STANDBY, Metrics

STOP_SECONDS: Final = 120.0
"""How long a connector may take to stop or to start."""
KAFKA_SECONDS: Final = 10.0

_LOOK_SECONDS: Final = 0.5
_FOREIGN_SECONDS: Final = 10.0  # for which another reader of the slot is waited for


class TakeoverError(CdcError):
    """A take-over or its undo is refused, or could not be proven."""


class Handover:
    """The slot between two programs; `say` reports each step. All that waits ends with Temporary when `stop` is set."""

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None],
        stop: threading.Event,
        *,
        rest: ConnectRest | None = None,
        configuration: Configuration | None = None,
    ) -> None:
        self.settings = settings
        self.say = say
        self.stop = stop
        self.rest = rest
        self.configuration = configuration
        self.name = settings.postgres.slot
        self.file = Path(f"takeover-{self.name}.json")  # the offsets of before

    def key(self, connection: Conn) -> str:
        """Return the key of the slot's record."""
        return f"{slots.system_identifier(connection)}/{self.name}"

    def check_stopped(self, connection: Conn) -> None:
        """Raise TakeoverError while the slot has a reader."""
        if slots.get(connection, self.name).active_pid is not None:
            raise TakeoverError(
                f"slot {self.name!r} is being read: by the publisher, or by Debezium", hint="stop the reader first"
            )

    def until(self, holds: Callable[[], bool], complaint: str, seconds: float | None, hint: str) -> None:
        """Wait until `holds()`. Raises TakeoverError with the complaint after `seconds`."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not holds():
            if deadline is not None and time.monotonic() > deadline:
                raise TakeoverError(complaint, hint=hint)
            self.pause()

    def pause(self) -> None:
        """Wait for a moment. Raises Temporary when the command was interrupted."""
        if self.stop.wait(_LOOK_SECONDS):
            raise Temporary("interrupted; run the same command again to continue it")

    def publish(self, until: LSN) -> None:
        """Publish until the slot has passed `until`, and everything that was read is delivered and confirmed."""
        self.say(f"publishing until {until}")
        settings = self.settings
        with connect(settings.postgres.dsn) as connection:
            # WAL that is not flushed is not streamed: a commit flushes it.
            query(connection, "flushing the WAL", "select pg_current_xact_id()::text")
        reached, metrics, trouble = threading.Event(), Metrics(), list[CdcError]()
        watch = threading.Thread(target=self._watch, args=(until, reached, metrics, trouble), daemon=True)
        watch.start()
        try:
            drained = self.serve(reached, metrics)
        finally:
            reached.set()
            watch.join(_FOREIGN_SECONDS)
        if trouble:
            raise trouble[0]
        if self.stop.is_set():
            raise Temporary("interrupted; run the same command again to continue it")
        if not drained:
            raise Temporary("Kafka did not confirm all records in time; run the same command again")

    def serve(self, stop: threading.Event, metrics: Metrics) -> bool:
        """Run the publisher until `stop`; return whether everything was delivered and confirmed."""
        settings = self.settings
        runs = accelerator.choose(settings.delivery.accelerator)
        with contextlib.closing(Schemas(settings)) as schemas:
            schemas.read()
            service = Service(
                settings,
                schemas,
                Servers(settings),
                stop,
                threading.Event(),
                Clock(),
                random.random,
                make=runs.make,
                metrics=metrics,
            )
            return service.run()

    def _watch(self, until: LSN, reached: threading.Event, metrics: Metrics, trouble: list[CdcError]) -> None:
        """Set `reached` when the slot has passed `until`, on a signal, or when another program reads the slot."""
        foreign_since: float | None = None
        while not reached.wait(_LOOK_SECONDS):
            if self.stop.is_set():
                reached.set()
                return
            try:
                if metrics.phase == STANDBY:
                    foreign_since = foreign_since or time.monotonic()
                    if time.monotonic() - foreign_since > _FOREIGN_SECONDS:
                        raise TakeoverError(f"another program reads slot {self.name!r}: Debezium was started again")
                else:
                    foreign_since = None
                if self.rest and self.rest.state()[0] == "RUNNING":
                    raise TakeoverError(f"connector {self.rest.name} runs again: stop it, and run this command again")
                with connect(self.settings.postgres.dsn) as connection:
                    confirmed = slots.get(connection, self.name).confirmed
                if confirmed is not None and confirmed >= until:
                    reached.set()
            except (Temporary, ConnectError):
                continue
            except CdcError as error:
                trouble.append(error)
                reached.set()
