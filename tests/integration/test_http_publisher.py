"""The HTTP endpoint of a real publisher: strangers do not disturb it, and what is wrong with its address is told."""

import contextlib
import socket
import subprocess
import sys
import threading

import pytest

from tests.endpoint import Endpoint, connected, listening, raw
from tests.integration.test_http_server import REFUSED, TAKEN
from tests.load import Load
from tests.pipeline import Pipeline

pytestmark = pytest.mark.timeout(180)


def disturb(endpoint: Endpoint, done: threading.Event) -> None:
    """Send every kind of nonsense, again and again, through connections of which some stay."""
    with contextlib.ExitStack() as idle:
        while not done.is_set():
            for request, _ in (*REFUSED.values(), *TAKEN.values()):
                raw(endpoint.address, request)
                idle.enter_context(connected(endpoint.address)).sendall(request[:10])


def test_hostile_requests_do_not_disturb_publishing_and_are_not_logged(pipeline: Pipeline) -> None:
    endpoint = listening(pipeline)
    endpoint.reaches("idle", 200)
    done = threading.Event()
    stranger = threading.Thread(target=disturb, args=(endpoint, done))
    with Load(pipeline.dsn, writers=1, pause=0.01):
        stranger.start()
        try:
            for _ in range(20):
                assert endpoint.ask("/readyz").status == 200
                assert endpoint.ask("/metrics").status == 200
                done.wait(0.1)
        finally:
            done.set()
            stranger.join()
    pipeline.settles()
    assert endpoint.ask("/status").json["totals"]["delivered"] == len(pipeline.judge(duplicates=False))
    assert endpoint.running.stop() == 0
    assert {line["level"] for line in endpoint.running.log if line["logger"] != "cdc.kafka.topics"} == {"info"}


def test_an_address_that_cannot_be_had_ends_start_with_78_and_one_line(pipeline: Pipeline) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for listen, told in (
            (f"127.0.0.1:{port}", f"cannot listen on 127.0.0.1:{port}: the port is taken; choose another port, or"),
            ("192.0.2.1:8080", "this machine has no such address"),
            ("8080", "'8080' is not host:port, such as 127.0.0.1:8080"),
        ):
            done = pipeline.run_process("--set", f"http.listen={listen}", "start")
            assert done.returncode == 78, done.stderr
            assert told in done.stderr
            assert done.stderr.count("\n") == 1


def test_without_an_address_no_library_for_http_is_loaded() -> None:
    loaded = "{'http.server', 'prometheus_client', 'cdc.http.server'} & {*sys.modules}"
    code = f"import sys, cdc.cli.start, cdc.cli.publishing; print(*{loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""
