"""One connection through a proxy: what arrives waits in a lane for each direction until the weather lets it depart."""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

READ_BYTES: Final = 65536
BUFFERED_BYTES: Final = 262_144  # of one direction; beyond it the sender has to wait, as on a real network
DRIBBLED_BYTES: Final = 400  # of each burst: a message's header and more, but not minutes of a large one

Direction = Literal["up", "down"]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Frames(Protocol):
    """Splits the two byte streams of a connection into messages."""

    def up(self, data: bytearray) -> Iterator[bytes]: ...
    def down(self, data: bytearray) -> Iterator[bytes]: ...
    def passing(self, frame: bytes, /) -> None: ...


@dataclass
class Weather:
    """What happens to the bytes of one direction, for all connections of a proxy."""

    delay: float = 0.0  # seconds
    rate: float | None = None  # bytes a second
    dribble: bool = False  # a byte at a time
    dark: bool = False  # nothing arrives
    held: Callable[[Any, bytes], bool] | None = None  # (frames, message): this one and all after it have to wait

    def stops(self, frames: Frames, frame: bytes) -> bool:
        return self.dark or (self.held is not None and self.held(frames, frame))


class Roads:
    """What all connections of a proxy have in common."""

    def __init__(self) -> None:
        self.weather: dict[Direction, Weather] = {"up": Weather(), "down": Weather()}
        self.cuts = 0
        self.errors: list[Exception] = []  # our own, such as bytes that are not what the protocol says


@dataclass
class _Lane:
    """One direction of a connection, from arrival to departure."""

    direction: Direction
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    queue: "deque[tuple[float, bytes]]" = field(default_factory=deque)  # (time of arrival, message)
    size: int = 0
    budget: int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False  # nothing more will arrive


class Connection:
    """A client, a server, and what is under way between them."""

    def __init__(self, roads: Roads, frames: Frames, client: Ends, server: Ends) -> None:
        self.frames = frames
        self.task: asyncio.Task[None] | None = None
        self._roads = roads
        self._forsaken, self._released = asyncio.Event(), asyncio.Event()
        self._client, self._server = client[1], server[1]
        self._lanes: dict[Direction, _Lane] = {
            "up": _Lane("up", client[0], server[1]),
            "down": _Lane("down", server[0], client[1]),
        }

    async def run(self) -> None:
        """Pass on until one side ends, then end the other."""
        self.task = asyncio.current_task()
        tasks = [
            asyncio.ensure_future(work(lane)) for lane in self._lanes.values() for work in (self._arrive, self._depart)
        ]
        forsaken = asyncio.ensure_future(self._forsaken.wait())
        try:
            await asyncio.wait([*tasks[1::2], forsaken], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, forsaken):
                task.cancel()
            results = await asyncio.gather(*tasks, forsaken, return_exceptions=True)
            self._roads.errors += [e for e in results if isinstance(e, Exception) and not isinstance(e, OSError)]
            try:
                if self._forsaken.is_set():
                    await self._released.wait()
            finally:
                self.finish()

    def reset(self) -> None:
        abort(self._client)
        abort(self._server)
        self._released.set()

    def finish(self) -> None:
        self._client.close()
        self._server.close()
        self._released.set()

    def forsake(self) -> None:
        abort(self._client)
        self._forsaken.set()

    def cut(self, direction: Direction, after: int) -> None:
        self._lanes[direction].budget = after

    def insert(self, frame: bytes, *, last: bool) -> None:
        lane = self._lanes["down"]
        lane.queue.append((0.0, frame))
        lane.size += len(frame)
        lane.ended |= last
        lane.changed.set()

    async def _arrive(self, lane: _Lane) -> None:
        data = bytearray()
        split = self.frames.up if lane.direction == "up" else self.frames.down
        try:
            while chunk := await lane.reader.read(READ_BYTES):
                data += chunk
                now = asyncio.get_running_loop().time()
                for frame in split(data):
                    if not lane.ended:
                        lane.queue.append((now, frame))
                        lane.size += len(frame)
                lane.changed.set()
                while lane.size > BUFFERED_BYTES:
                    await asyncio.sleep(0.01)
        finally:
            lane.ended = True
            lane.changed.set()

    async def _depart(self, lane: _Lane) -> None:
        while True:
            while not lane.queue:
                if lane.ended:
                    return
                lane.changed.clear()
                await lane.changed.wait()
            arrived, frame = lane.queue[0]
            await self._wait_for(lane, arrived, frame)
            if lane.writer.is_closing():
                return  # reset while the frame waited: nobody gets it, so that it must not count as passed on
            batch = self._batch(lane)
            if not await self._send(lane, batch):
                return

    async def _wait_for(self, lane: _Lane, arrived: float, frame: bytes) -> None:
        loop = asyncio.get_running_loop()
        while True:
            weather = self._roads.weather[lane.direction]
            late = arrived + weather.delay - loop.time() if weather.delay else 0.0
            if not weather.stops(self.frames, frame) and late <= 0:
                return
            await asyncio.sleep(min(late, 0.02) if late > 0 else 0.02)

    def _batch(self, lane: _Lane) -> list[bytes]:
        """The messages that may go now: in good weather all that wait, else one."""
        weather = self._roads.weather[lane.direction]
        one = weather.delay or weather.rate or weather.dribble or weather.held or lane.budget is not None
        batch = [lane.queue.popleft()[1] for _ in range(1 if one else len(lane.queue))]
        lane.size -= sum(map(len, batch))
        return batch

    async def _send(self, lane: _Lane, batch: list[bytes]) -> bool:
        """Pass messages on; False when the connection was cut inside of them."""
        data = b"".join(batch)
        if lane.budget is not None:
            if lane.budget < len(data):
                await self._write(lane, data[: lane.budget])
                self._roads.cuts += 1
                await asyncio.sleep(0.005)  # what precedes the reset arrives more often than not
                self.reset()
                return False
            lane.budget -= len(data)
        if lane.direction == "down":
            for frame in batch:
                self.frames.passing(frame)
        await self._write(lane, data)
        return True

    async def _write(self, lane: _Lane, data: bytes) -> None:
        weather = self._roads.weather[lane.direction]
        writer = lane.writer
        at = 0
        if weather.dribble:
            for at in range(1, min(len(data), DRIBBLED_BYTES) + 1):
                writer.write(data[at - 1 : at])
                await asyncio.sleep(0)
        while weather.rate and at < len(data):
            step = max(1, int(weather.rate / 20))
            writer.write(data[at : at + step])
            at += step
            await asyncio.sleep(0.05)
            weather = self._roads.weather[lane.direction]
        writer.write(data[at:])
        with contextlib.suppress(ConnectionError):
            await writer.drain()


def abort(writer: asyncio.StreamWriter) -> None:
    """Reset rather than close."""
    connection = writer.transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
