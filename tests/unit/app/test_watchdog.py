"""A process whose main loop stands still is ended, on whatever it stands (D7)."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

PIPE = subprocess.PIPE


def ended(
    within: str, behind: str = "pass", *, stderr: int | None = PIPE, prepare: Callable[[], None] | None = None
) -> "subprocess.Popen[bytes]":
    """A Python program with a part in and one behind a watchdog of 0.3 s, and 0.3 s for the dump; it has ended."""
    imports = "import re, threading, time\nfrom cdc.app.process import Watchdog"
    source = f"{imports}\nwith Watchdog(0.3, 0.3) as dog: {within}\n{behind}"
    process = subprocess.Popen([sys.executable, "-c", source], stderr=stderr, preexec_fn=prepare)
    try:
        process.wait(20)
    finally:
        process.kill()
    return process


def written(process: "subprocess.Popen[bytes]") -> str:
    assert process.stderr
    with process.stderr as output:
        return output.read().decode()


@pytest.mark.parametrize(
    "stands_on",
    [
        "time.sleep(30)",
        "re.match('(a+)+$', 'a' * 60 + 'b')",  # never gives the interpreter's lock back
        "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    ],
)
def test_a_loop_that_stands_still_ends_the_process_with_all_stacks_d7(stands_on: str) -> None:
    process = ended(stands_on)
    text = written(process)
    assert process.returncode == -signal.SIGALRM
    assert text.startswith("Timeout (0:00:00.300000)!")
    assert 'File "<string>", line 3' in text


def test_a_loop_that_turns_goes_on_and_nothing_ends_the_process_behind_it_d7() -> None:
    process = ended("[(time.sleep(0.01), dog.turned()) for _ in range(100)]", "time.sleep(1)")
    assert written(process) == ""
    assert process.returncode == 0


def test_a_standard_error_that_takes_nothing_does_not_keep_the_process_d7_d9() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    try:
        assert ended("time.sleep(30)", stderr=writing).returncode == -signal.SIGALRM
    finally:
        os.close(reading)
        os.close(writing)


def test_without_standard_error_the_process_ends_all_the_same_d7_d9() -> None:
    assert ended("time.sleep(30)", stderr=None, prepare=lambda: os.close(2)).returncode == -signal.SIGALRM
