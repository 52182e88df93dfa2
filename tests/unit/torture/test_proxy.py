"""What the proxies of the torture count as passed on."""

import socket
from collections.abc import Iterator

from tests.pipeline import eventually
from tests.torture.connection import Weather
from tests.torture.proxy import Loop, Proxy


class Bytes:
    """Every chunk is a message; `passed` are those that the client gets."""

    def __init__(self, passed: list[bytes]) -> None:
        self._passed = passed

    def up(self, data: bytearray) -> Iterator[bytes]:
        yield bytes(data)
        data.clear()

    down = up

    def passing(self, frame: bytes, /) -> None:
        self._passed.append(frame)


def test_a_message_that_waits_on_a_connection_that_is_reset_was_not_passed_on() -> None:
    passed: list[bytes] = []
    waiting: list[bytes] = []

    def held(_: object, message: bytes) -> bool:
        waiting.append(message)
        return True

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Loop() as loop,
        Proxy(loop, server.getsockname(), lambda: Bytes(passed)) as proxy,
    ):
        proxy.set("down", Weather(held=held))
        with socket.create_connection(("127.0.0.1", proxy.port)), server.accept()[0] as ours:
            ours.sendall(b"held")
            eventually(lambda: b"held" in waiting, "the message")
            proxy.reset()
            proxy.heal()
            eventually(lambda: proxy.count() == 0, "the end of the connection")
    assert passed == []
