"""Contracts as a simulated world needs them: values are payloads as they are, and one kind of payload does not fit."""

from typing import Any

from cdc.records.router import Encoder
from tests.simulation.rows import POISON
from tests.simulation.world import World


class SimContracts:
    """Encoders and framing; a schema's id may become known late, and poison events may become valid."""

    name = "Placed"
    envelope: Encoder | None = None

    plan = None

    def __init__(self, world: World) -> None:
        self._world = world
        self.known_at = 0.0
        self.mended = False

    @property
    def names(self) -> list[str]:
        return [self.name]

    def read(self) -> None:
        """Nothing changes."""

    def examine(self, event_type: str, body: bytes) -> bool:  # noqa: ARG002
        return True

    def get(self, event_type: str, /) -> Encoder | None:  # noqa: ARG002
        return self

    def asks_again(self, event_type: str) -> bool:  # noqa: ARG002
        return False

    def missing(self, event_type: str) -> str:
        return f"no contract for {event_type}"

    def header(self, topic: str, contract: str) -> bytes | None:  # noqa: ARG002
        return None if self._world.now < self.known_at else b""

    def close(self) -> None:
        """Nothing to close."""

    def encode(self, payload: bytes, header: bytes) -> bytes:
        if POISON.encode() in payload and not self.mended:
            raise ValueError("does not fit")
        return header + payload

    def encode_value(self, value: Any, header: bytes) -> bytes:
        return header + repr(value).encode()
