"""Runs in an environment that holds the wheel and what it requires, as a user without an account and a home.

Reads from stdin, as JSON, calls of the program by their names, and prints what became of each. Output goes to files of
the working folder. A call may add to the environment: `{"list": {"words": ["schema", "list"], "environment": {}}}`.
"""

import contextlib
import json
import os
import pwd
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from cdc.cli.main import cli, main

AT_ONCE = 24  # most of them wait for servers


def without_account() -> None:
    """Let nothing find an account or a home, as for a user id that only the container's start names."""

    def unknown(user: object) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    pwd.getpwuid = unknown
    os.environ.pop("HOME", None)


def load() -> None:
    """Import the commands once instead of in every call, but for those that fail: their calls show why."""
    for name in cli.list_commands(click.Context(cli)):
        with contextlib.suppress(ImportError):
            cli.get_command(click.Context(cli), name)


def call(name: str, words: list[str], environment: dict[str, str]) -> NoReturn:
    """Make a call in this process, which ends with it."""
    os.environ.update(environment)
    for descriptor, file in ((0, os.devnull), (1, f"{name}.out"), (2, f"{name}.err")):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), descriptor)
    sys.argv = ["cdc-publisher", *words]
    main()


def called(calls: dict[str, Any]) -> dict[str, Any]:
    """Make all calls, some at once, and return exit code and output of each."""
    running: dict[int, str] = {}
    codes: dict[str, int] = {}

    def wait() -> None:
        child, status = os.wait()
        codes[running.pop(child)] = os.waitstatus_to_exitcode(status)

    for name, given in calls.items():
        child = os.fork()
        if not child:
            call(name, given["words"], given["environment"])
        running[child] = name
        if len(running) >= AT_ONCE:
            wait()
    while running:
        wait()
    return {
        name: {"code": code, "out": Path(f"{name}.out").read_text(), "err": Path(f"{name}.err").read_text()}
        for name, code in codes.items()
    }


def found() -> dict[str, Any]:
    """Return what the program finds of what was packed with it."""
    from cdc.avro.files import shipped
    from cdc.consumer import Decoder
    from cdc.errors import ConfigError
    from cdc.http.page import Page

    try:
        Decoder(registry_url="http://127.0.0.1:1")
        refusal = ""
    except ConfigError as error:
        refusal = str(error)
    return {
        "page": Page().answer.body.decode(),
        "contracts": sorted(path.name for path in shipped("shop").glob("*.avsc")),
        "decoder": refusal,
    }


if __name__ == "__main__":
    without_account()
    load()
    print(json.dumps({"called": called(json.load(sys.stdin)), "found": found()}))
