"""The pipe between an instance and a child: its end drains the one, and is the end of the other."""

import multiprocessing
import threading
from multiprocessing.connection import Connection
from typing import Any

import pytest

from cdc.fleet.child import DRAIN, RELOAD, ChildReport, LastWord, Voice
from cdc.fleet.children import Children, Ended, _Child
from cdc.status.from_metrics import describe
from tests import specimen

PATIENCE = 20.0


class Process:
    """A process whose exit code the forkserver, which died, no longer knows."""

    exitcode = 255
    pid = 7

    def join(self, _: float) -> None:
        pass


@pytest.fixture
def pipe() -> tuple["Connection[Any, Any]", "Connection[Any, Any]"]:
    return multiprocessing.Pipe()


def state() -> ChildReport:
    metrics = specimen.metrics()
    return ChildReport(describe(metrics, specimen.IDENTITY, 0.0, past=False), metrics.figures)


def test_the_end_of_the_pipe_drains_the_child(pipe: tuple["Connection[Any, Any]", "Connection[Any, Any]"]) -> None:
    ours, theirs = pipe
    drained = threading.Event()
    Voice(theirs, drained.set, lambda: None)
    ours.close()
    assert drained.wait(PATIENCE)


def test_a_child_does_what_it_is_ordered(pipe: tuple["Connection[Any, Any]", "Connection[Any, Any]"]) -> None:
    ours, theirs = pipe
    drained, reloaded = threading.Event(), threading.Event()
    Voice(theirs, drained.set, reloaded.set)
    ours.send_bytes(RELOAD)
    assert reloaded.wait(PATIENCE)
    assert not drained.is_set()
    ours.send_bytes(DRAIN)
    assert drained.wait(PATIENCE)
    ours.close()


def test_a_child_reports_its_state_and_then_its_last_word(
    pipe: tuple["Connection[Any, Any]", "Connection[Any, Any]"],
) -> None:
    ours, theirs = pipe
    voice = Voice(theirs, lambda: None, lambda: None)
    voice.reports(state)
    assert ours.poll(PATIENCE)
    told = ours.recv()
    assert told.document.state == "streaming"
    voice.ends(LastWord(1, "poison"))
    said = [ours.recv(), ours.recv()]
    while not isinstance(said[-1], LastWord):
        said.append(ours.recv())
    assert said[-1] == LastWord(1, "poison")
    ours.close()


def test_a_child_has_ended_when_its_pipe_is_closed_and_not_by_its_exit_code(
    pipe: tuple["Connection[Any, Any]", "Connection[Any, Any]"],
) -> None:
    ours, theirs = pipe
    children = Children("text", verbose=False)
    process: Any = Process()
    children._children["shop"] = _Child(process, ours)
    assert list(children.listen(0)) == []
    theirs.send(LastWord(1, "poison"))
    assert list(children.listen(0)) == []
    theirs.close()
    assert list(children.listen(PATIENCE)) == [("shop", Ended(1, "poison"))]
    assert children.pid("shop") is None


def test_a_child_without_a_last_word_has_crashed(pipe: tuple["Connection[Any, Any]", "Connection[Any, Any]"]) -> None:
    ours, theirs = pipe
    children = Children("text", verbose=False)
    process: Any = Process()
    children._children["shop"] = _Child(process, ours)
    theirs.close()
    ((unit, said),) = children.listen(PATIENCE)
    assert isinstance(said, Ended)
    assert (unit, said.code) == ("shop", None)
