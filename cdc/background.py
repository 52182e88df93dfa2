"""Answers questions on a thread: for a loop that polls and must never wait, or beside other work."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final, Generic, TypeVar

_CLOSE_SECONDS: Final = 1.0

K = TypeVar("K")
V = TypeVar("V")


class TryAgain(Exception):
    """Raised by a question that cannot be answered now: ask it again after a pause, behind the others."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class Background(Generic[K, V]):
    """A daemon thread, which the first question starts; all methods belong to one other thread.

    `leave` runs on the thread at its end. A pool of concurrent.futures would hold up the end of the process for as
    long as a server hangs.
    """

    def __init__(self, name: str, leave: Callable[[], object] = lambda: None) -> None:
        self.closed = threading.Event()
        self._leave = leave
        # Written by the thread only, except that failures are taken out when they are raised.
        self._answers: dict[K, V] = {}
        self._failures: dict[K, Exception] = {}
        self._asked: set[K] = set()
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def ask(self, key: K, question: Callable[..., V], *details: object) -> V | None:
        """Return what `question` returns for its details; None until that is known. Each key is asked for once.

        Raises what the question raised; to ask after that is to try again.
        """
        answer = self._answers.get(key)
        if answer is None:
            if key not in self._asked:
                self._asked.add(key)
                self.run(partial(self._answer, key, partial(question, *details)))
                if self._thread.ident is None:
                    self._thread.start()
            elif key in self._failures:
                self._asked.discard(key)
                raise self._failures.pop(key)
        return answer

    def forget(self, key: K) -> None:
        """Drop an answer: the question may be asked again."""
        del self._answers[key]
        self._asked.discard(key)

    def run(self, job: Callable[[], object]) -> None:
        """Run a job behind the questions asked so far, if there is a thread or will be one."""
        self._jobs.put(job)

    def close(self) -> None:
        """End the thread; a request that hangs is left to its own timeout."""
        self.closed.set()
        self._jobs.put(lambda: None)
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_SECONDS)

    def _work(self) -> None:
        while not self.closed.is_set():
            self._jobs.get()()
        self._leave()

    def _answer(self, key: K, question: Callable[[], V]) -> None:
        try:
            self._answers[key] = question()
        except TryAgain as again:
            self.run(partial(self._answer, key, question))
            self.closed.wait(again.seconds)
        except Exception as error:  # of any kind: `ask` raises it
            if not self.closed.is_set():  # which may be the reason
                self._failures[key] = error


class Task(Generic[V]):
    """Runs a function beside the caller, on a daemon thread: a pool of concurrent.futures would hold up the exit."""

    def __init__(self, name: str, function: Callable[[], V]) -> None:
        self._result: Future[V] = Future()
        threading.Thread(target=self._run, args=(function,), name=name, daemon=True).start()

    def result(self) -> V:
        """Wait for the function; return what it returned, or raise what it raised."""
        return self._result.result()

    def _run(self, function: Callable[[], V]) -> None:
        try:
            self._result.set_result(function())
        except BaseException as error:  # of any kind: `result` raises it
            self._result.set_exception(error)
