"""Recovers from a lost slot without an operator: `[delivery] on_slot_lost = "recover"`."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from functools import partial
from typing import Final

from cdc.config.settings import Settings
from cdc.delivery.ports import Flag
from cdc.errors import CdcError, RecoveryUnfinished, SlotLost
from cdc.recovery.run import Recovery, RecoveryStep
from cdc.recovery.state import FoundState, NothingToRecover, RecoveryOptions
from cdc.telemetry.metrics import RECOVERING, Metrics

log = logging.getLogger(__name__)

_ONCE_SECONDS: Final = 3600.0
_TURN_SECONDS: Final = 1.0


def heal(settings: Settings, stop: Flag, metrics: Metrics, alive: Callable[[], None], lost: CdcError) -> None:
    """Recover, unless `stop` is set meanwhile; the progress is written into `metrics`.

    Raises `lost` where only an operator may recover: the slot has no record in Kafka or was recovered within the last
    hour, an earlier attempt has failed, or the order of events is not certain. Raises Temporary to be called again.
    """
    with _ticking(alive), _opened(settings, lost) as recovery:
        if recovery is None or recovery.found.finished is not None:
            return  # another process was faster
        metrics.recovered = None
        metrics.enter(RECOVERING, time.time(), lost.message)
        log.warning("recovering: %s", lost.message, extra={"event": "recovering", "slot": settings.postgres.slot})
        if not _run(recovery, recovery.survey(), stop, metrics):
            return
        if recovery.unordered:
            raise _refusal(lost, f"the order of {recovery.unordered} keys with several missing events is not certain")
        if not _run(recovery, recovery.heal(), stop, metrics):
            return
        done = recovery.done
        log.warning(
            "recovered the slot",
            extra={
                "event": "recovered",
                "sent": done["sent"],
                "dead_lettered": done["dead_lettered"],
                "perhaps_again": done["perhaps_again"],
                "start": done["start"],
                "bound": done["bound"],
                "order": done["order"],
            },
        )
        if losses := recovery.losses:
            log.error(
                "%s, perhaps before they were published",
                losses,
                extra={"event": "rows_deleted_unpublished", "rows": losses.rows},
            )


@contextlib.contextmanager
def _opened(settings: Settings, lost: CdcError) -> Iterator[Recovery | None]:
    try:
        recovery = Recovery(settings, RecoveryOptions(automatic=True), partial(_allow, lost))
    except NothingToRecover:
        yield None
        return
    with contextlib.closing(recovery):
        yield recovery


def _allow(lost: CdcError, found: FoundState) -> None:
    record, begun = found.memory.record, found.begun
    if begun is not None and (not begun.automatic or begun.failed):
        why = f"its last attempt failed: {begun.failed}" if begun.failed else "an operator began it"
        raise RecoveryUnfinished(f"{begun.unfinished().message}; {why}", hint=begun.unfinished().hint)
    if begun is None and record is None:
        raise _refusal(lost, "the slot has no record in Kafka")
    done = record.recovered if record else None
    if begun is None and done and done.get("automatic"):
        seconds = time.time() - datetime.fromisoformat(str(done["at"])).timestamp()
        if seconds < _ONCE_SECONDS:
            raise _refusal(lost, f"it was recovered {seconds / 60:.0f} minutes ago, and is lost again")


def _refusal(lost: CdcError, why: str) -> CdcError:
    return SlotLost(f"{lost.message}; not recovered automatically: {why}", hint=lost.hint)


def _run(recovery: Recovery, steps: Generator[RecoveryStep, None, None], stop: Flag, metrics: Metrics) -> bool:
    """Run steps; return whether they have ended, and were not stopped."""
    for step in steps:
        if stop.is_set():
            steps.close()  # which drops an unfinished slot
            return False
        sent, missing = metrics.recovered = recovery.progress
        how_far = "" if missing is None else f", {sent} of {missing} events sent"
        metrics.enter(RECOVERING, metrics.phase_since, f"{step.name}{how_far}")
    return True


@contextlib.contextmanager
def _ticking(alive: Callable[[], None]) -> Iterator[None]:
    """Call `alive` every second: PostgreSQL may sort rows, or wait for open transactions, for long."""
    ended = threading.Event()

    def turn() -> None:
        while not ended.wait(_TURN_SECONDS):
            alive()

    thread = threading.Thread(target=turn, name="recovery", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
