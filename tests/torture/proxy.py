"""A TCP proxy that understands the messages it passes, and spoils them on demand.

Messages are taken apart as they arrive and passed on whole, unless a fault says otherwise: so a fault can fall between
two messages or inside one. All proxies of a run share one event loop in a thread of its own, which orders what they
see: an acknowledgement that passes one before a status update arrives at another was there first.
"""

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.torture.connection import Connection, Direction, Frames, Roads, Weather, abort

T = TypeVar("T")
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Loop:
    """The event loop of the proxies, in its own thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def call(self, action: Callable[[], T]) -> T:
        """Run `action` in the loop's thread and return what it returns."""

        async def run() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result()


class Proxy:
    """Listens on a port of its own for clients of the server at `target`; `frames` makes the splitter of a connection.

    Faults are set from any thread: `weather` for what lasts, the methods for what happens once.
    """

    def __init__(self, loop: Loop, target: tuple[str, int], frames: Callable[[], Frames], port: int = 0) -> None:
        self.roads = Roads()
        self.refusing = False
        self.answer: Answer | None = None  # what talks to new connections instead of the server
        self.next_budgets: deque[int] = deque()  # bytes from the server that each of the next connections may pass
        self._loop = loop
        self._target = target
        self._frames = frames
        self._connections: set[Connection] = set()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        async def serve() -> asyncio.Server:
            return await asyncio.start_server(self._accept, sock=self._socket)

        self._server = asyncio.run_coroutine_threadsafe(serve(), self._loop.loop).result()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        async def close() -> None:
            assert self._server
            self._server.close()
            ending = [connection.task for connection in self._connections if connection.task]
            for connection in list(self._connections):
                connection.reset()
            await asyncio.gather(*ending, return_exceptions=True)
            await asyncio.sleep(0.01)  # the transports close after their tasks

        asyncio.run_coroutine_threadsafe(close(), self._loop.loop).result()

    def count(self) -> int:
        """How many connections pass through now."""
        return self._loop.call(lambda: len(self._connections))

    def heal(self) -> None:
        """Let everything pass again."""

        def heal() -> None:
            self.roads.weather = {"up": Weather(), "down": Weather()}
            self.refusing, self.answer = False, None
            self.next_budgets.clear()

        self._loop.call(heal)

    def set(self, direction: Direction, weather: Weather) -> None:
        """Change the weather."""
        self._loop.call(lambda: self.roads.weather.update({direction: weather}))

    def reset(self) -> int:
        """RST to both sides of every connection; returns how many there were."""
        return self._each(lambda connection: connection.reset())

    def finish(self) -> int:
        """FIN to both sides of every connection, behind what has been passed on."""
        return self._each(lambda connection: connection.finish())

    def forsake(self) -> int:
        """RST to the clients; the servers hear nothing and keep what is then half a connection until `reset`."""
        return self._each(lambda connection: connection.forsake())

    def cut(self, direction: Direction, after: int) -> int:
        """Reset the connection after a number of further bytes in `direction`, possibly within a message."""
        return self._each(lambda connection: connection.cut(direction, after))

    def insert(self, message: Callable[[Any], bytes | None], *, last: bool = False) -> int:
        """Say to each client, between two messages, what `message` makes of its frames; None says nothing.

        `last` closes the connection behind it. Returns to how many it was said.
        """

        def insert() -> int:
            said = 0
            for connection in list(self._connections):
                if frame := message(connection.frames):
                    connection.insert(frame, last=last)
                    said += 1
            return said

        return self._loop.call(insert)

    def _each(self, action: "Callable[[Connection], None]") -> int:
        def act() -> int:
            connections = list(self._connections)
            for connection in connections:
                action(connection)
            return len(connections)

        return self._loop.call(act)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            abort(writer)
            return
        if self.answer:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self.answer(reader, writer)
            writer.close()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            abort(writer)
            return
        connection = Connection(self.roads, self._frames(), (reader, writer), (server_reader, server_writer))
        if self.next_budgets:
            connection.cut("down", self.next_budgets.popleft())
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
