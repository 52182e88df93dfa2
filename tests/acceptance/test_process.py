"""Faults of the process: its logs are not read, it is frozen, several instances run."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc.lsn import LSN
from tests.load import Load
from tests.pipeline import PATIENCE, Pipeline, Running, eventually

pytestmark = pytest.mark.timeout(240)


class Loud:
    """A publisher with verbose JSON logs on a standard error that the test chooses."""

    def __init__(self, pipeline: Pipeline, stderr: "int | IO[bytes] | None" = None) -> None:
        pipeline.settings["kafka"]["debug"] = "all"
        command = ["-m", "cdc", "--config", str(pipeline.configure()), "-v", "--log-format", "json", "start"]
        closed = ["sh", "-c", 'exec "$@" 2>&-', "sh"] if stderr is None else []
        self.process = subprocess.Popen([*closed, sys.executable, *command], stderr=stderr)
        self._pipeline = pipeline

    def settles(self) -> None:
        """Wait until the slot has moved past the current WAL position."""
        end = self._pipeline.wal_end()

        def passed() -> bool:
            assert self.process.poll() is None
            return self._pipeline.confirmed() >= end

        eventually(passed, "the slot moves")

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Pipe:
    """The two ends of a small pipe; a child process gets the writing end."""

    reading: IO[bytes]
    writing: IO[bytes]

    def lines(self) -> list[str]:
        """Read the pipe until all its writers have closed it."""
        self.writing.close()
        return self.reading.read().decode().split("\n")[:-1]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    with open(ends[0], "rb") as reading, open(ends[1], "wb", buffering=0) as writing:
        yield Pipe(reading, writing)


def test_events_are_published_while_no_process_reads_the_logs_d9(pipeline: Pipeline, pipe: Pipe) -> None:
    loud = Loud(pipeline, pipe.writing)
    try:
        for seq in range(1, 31):
            pipeline.insert(seq)
        loud.settles()
        assert loud.stop() == 0
    finally:
        loud.kill()
    assert len(pipe.lines()) < 100  # what fits into the pipe: it was full all the time
    assert len(pipeline.judge()) == 30


def test_logs_come_in_order_and_complete_when_their_reader_is_back_d9(pipeline: Pipeline, pipe: Pipe) -> None:
    loud = Loud(pipeline, pipe.writing)
    try:
        pipeline.insert(1)
        loud.settles()
        loud.process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in pipe.lines()]
        assert loud.process.wait(PATIENCE) == 0
    finally:
        loud.kill()
    times = [line["time"] for line in lines]
    assert times == sorted(times)
    messages = [line["message"] for line in lines]
    assert "starting" in messages
    assert messages[-1] == "stopped"
    assert len(messages) > 100


def test_events_are_published_without_standard_error_d9(pipeline: Pipeline) -> None:
    loud = Loud(pipeline, None)
    try:
        pipeline.insert(1)
        loud.settles()
        assert loud.stop() == 0
    finally:
        loud.kill()
    assert len(pipeline.judge()) == 1


def test_events_are_published_after_the_reader_of_the_logs_has_ended_d9(pipeline: Pipeline, pipe: Pipe) -> None:
    pipe.reading.close()
    loud = Loud(pipeline, pipe.writing)
    try:
        pipeline.insert(1)
        loud.settles()
        assert loud.stop() == 0
    finally:
        loud.kill()
    assert len(pipeline.judge()) == 1


def test_events_are_published_while_the_disk_of_the_logs_is_full_d9(pipeline: Pipeline) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        loud = Loud(pipeline, full)
        try:
            pipeline.insert(1)
            loud.settles()
            assert loud.stop() == 0
        finally:
            loud.kill()
    assert len(pipeline.judge()) == 1


def test_the_error_that_ends_it_is_the_last_line_also_for_a_slow_reader_d9(pipeline: Pipeline, pipe: Pipe) -> None:
    pipeline.settings["postgres"]["slot"] = "another"
    loud = Loud(pipeline, pipe.writing)
    try:
        time.sleep(3)
        lines = pipe.lines()
        assert loud.process.wait(PATIENCE) == 1
    finally:
        loud.kill()
    assert lines[-1].startswith("cdc-publisher: ")
    assert "another" in lines[-1]
    assert json.loads(lines[0])["message"] == "starting"


def test_error_ends_the_program_while_no_process_reads_the_logs_d9(pipeline: Pipeline, pipe: Pipe) -> None:
    os.set_blocking(pipe.writing.fileno(), False)
    while pipe.writing.write(b"x" * 512) is not None:
        pass
    os.set_blocking(pipe.writing.fileno(), True)
    pipeline.settings["postgres"]["slot"] = "another"
    loud = Loud(pipeline, pipe.writing)
    try:
        assert loud.process.wait(20) == 1
    finally:
        loud.kill()


@pytest.fixture
def impatient(pipeline: Pipeline) -> Pipeline:
    """A pipeline of a database whose server disconnects clients after 2 s of silence."""
    pipeline.sql(f"alter database {conninfo_to_dict(pipeline.dsn)['dbname']} set wal_sender_timeout = '2s'")
    return pipeline


def commit_lsn(position: str) -> LSN:
    return LSN(int(position.split("-")[1], 16))


def settled(pipeline: Pipeline) -> None:
    """Wait until any publisher has moved the slot past the current WAL position."""
    end = pipeline.wal_end()
    eventually(lambda: pipeline.confirmed() >= end, f"slot at {end}")


def test_two_and_three_publishers_on_one_slot_take_turns_b15(pipeline: Pipeline) -> None:
    active = pipeline.start().streams()
    waiting = [pipeline.start().logs("standby") for _ in range(2)]
    with Load(pipeline.dsn) as load:
        for _ in range(2):
            load.goes_on()
            assert sum(one.count("streaming") for one in waiting) == 0
            assert active.stop() == 0
            eventually(lambda: any(one.count("streaming") for one in waiting), "one of them takes over")
            (active,) = [one for one in waiting if one.count("streaming")]
            waiting.remove(active)
    settled(pipeline)
    assert active.stop() == 0
    pipeline.judge(duplicates=False)


def test_frozen_and_replaced_publisher_detects_it_and_waits_b15_b16_d6(impatient: Pipeline) -> None:
    pipeline = impatient
    frozen = pipeline.start().streams()
    standby = pipeline.start().logs("standby")
    with Load(pipeline.dsn):
        time.sleep(1.5)
        confirmed = pipeline.confirmed()
        frozen.signal(signal.SIGSTOP)
        end = pipeline.wal_end()
        standby.streams()
        time.sleep(0.5)
        settled(pipeline)
        lines = len(frozen.log)
        frozen.signal(signal.SIGCONT)
        noticed = noticing(frozen, lines)
        time.sleep(0.5)
    settled(pipeline)
    assert "stood still" in noticed or "connection ended" in noticed
    assert standby.count("streaming") == 1
    assert standby.stop() == 0
    frozen.logs("streaming", times=2)
    pipeline.insert(10**6, key="last")
    settled(pipeline)
    assert frozen.stop() == 0
    records = pipeline.judge(duplicates=True)
    again = {id_ for id_, times in Counter(r.id for r in records).items() if times > 1}
    repeated = [commit_lsn(r.position) for r in records if r.id in again]
    # What may come twice: what was delivered and not yet confirmed when the first one froze, nothing else.
    assert all(confirmed <= lsn <= end for lsn in repeated)


def noticing(running: Running, lines: int) -> str:
    """Wait until a publisher is a standby again, and return its first message after these lines."""
    eventually(
        lambda: any("standby" in line["message"] for line in running.log[lines:]), f"standby in {running.messages()}"
    )
    return str(running.log[lines]["message"])
