"""Questions are answered on a thread; who asks never waits, and hears of a failure once."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cdc.background import Background, Task, TryAgain


@pytest.fixture
def background() -> Iterator[Background[str, int]]:
    made: Background[str, int] = Background("questions")
    yield made
    made.close()
    assert not made._thread.is_alive()


def until(ask: Callable[[], int | None]) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if (answer := ask()) is not None:
            return answer
        time.sleep(0.001)
    raise AssertionError("no answer")


def test_a_question_is_asked_once_and_its_answer_is_kept(background: Background[str, int]) -> None:
    calls: list[str] = []

    def length(text: str) -> int:
        calls.append(text)
        return len(text)

    assert background.ask("four", length, "four") is None
    assert until(lambda: background.ask("four", length, "four")) == 4
    assert background.ask("four", length, "four") == 4
    assert calls == ["four"]
    background.forget("four")
    assert until(lambda: background.ask("four", length, "four")) == 4
    assert calls == ["four", "four"]


def test_asking_returns_while_a_question_hangs(background: Background[str, int]) -> None:
    go_on = threading.Event()
    assert background.ask("a", lambda: int(go_on.wait(10))) is None
    assert background.ask("a", lambda: 0) is None
    go_on.set()
    assert until(lambda: background.ask("a", lambda: 0)) == 1


def test_a_failure_is_raised_once_and_then_asked_again(background: Background[str, int]) -> None:
    answers = iter([ValueError("broken"), None])

    def question() -> int:
        if error := next(answers):
            raise error
        return 7

    with pytest.raises(ValueError, match="broken"):
        until(lambda: background.ask("a", question))
    assert until(lambda: background.ask("a", question)) == 7


def test_a_question_to_be_repeated_goes_behind_the_others(background: Background[str, int]) -> None:
    order: list[str] = []
    both_asked = threading.Event()

    def first() -> int:
        both_asked.wait(10)
        order.append("first")
        if order.count("first") == 1:
            raise TryAgain(0)
        return 1

    def second() -> int:
        order.append("second")
        return 2

    background.ask("first", first)
    background.ask("second", second)
    both_asked.set()
    assert until(lambda: background.ask("first", first)) == 1
    assert order == ["first", "second", "first"]


def test_closing_runs_the_last_job_on_the_thread() -> None:
    left: list[str] = []
    background: Background[str, int] = Background("leaving", lambda: left.append(threading.current_thread().name))
    assert until(lambda: background.ask("a", lambda: 1)) == 1
    background.close()
    assert left == ["leaving"]
    assert background.ask("b", lambda: 2) is None


def test_a_thread_that_nothing_was_asked_of_is_never_started() -> None:
    background: Background[str, int] = Background("idle")
    background.run(lambda: None)
    background.close()
    assert background._thread.ident is None


def test_a_task_goes_on_beside_its_caller_who_waits_for_what_it_returns() -> None:
    go_on = threading.Event()
    task = Task("task", lambda: go_on.wait(10))
    assert not task._result.done()
    go_on.set()
    assert task.result() is True


def test_what_a_task_raises_its_caller_gets_each_time() -> None:
    def fail() -> int:
        raise ValueError("no")

    task = Task("task", fail)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            task.result()
