"""Puts the simulated servers in place of what a recovery opens, for as long as a world runs."""

import contextlib
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from cdc.audit import table
from cdc.dead_letters import resend
from cdc.outbox.keys import TEXT_KEYS
from cdc.postgres import horizons
from cdc.purge import run as purge
from cdc.records.encoding import Encoding
from cdc.replication.publication import NONE, ROW_FILTER
from tests.simulation.contracts import SimContracts
from tests.simulation.recovery.connection import COLUMNS, DEFINITION, SimConnection, SimNewSlot, SimSource
from tests.simulation.recovery.topics import DESTINATIONS, SimPositions, SimProducer, SimTopicReader

if TYPE_CHECKING:
    from tests.simulation.recovery.world import RecoveryRun

_FEW: Final = 4
_PORTION: Final = 3


class SimMaker:
    """In place of RecordMaker: contracts fit, and topics exist."""

    destinations = DESTINATIONS

    def __init__(self, contracts: SimContracts) -> None:
        self._contracts = contracts

    def encoding(self, outbox: Any) -> Encoding:
        return Encoding(outbox, self._contracts, self._contracts)

    def make(self, _: str, encode: Any) -> Any:
        return encode()

    def close(self) -> None:
        """Nothing to close."""


@contextlib.contextmanager
def installed(world: "RecoveryRun") -> Iterator[None]:
    """Replace the names by which the modules know the servers, and put them back."""
    server, topics, call = world.server, world.topics, world.call

    def nothing(*_: object, **__: object) -> None:
        return None

    clock = SimpleNamespace(
        time=server.now,
        time_ns=lambda: int(server.now() * 1e9),
        monotonic=lambda: world.world.now,
        sleep=nothing,
    )
    maker = SimMaker(SimContracts(world.world))
    positions = SimPositions(topics, call)
    cluster = SimpleNamespace(cluster_id=lambda: "", ensure_topic=nothing)
    catalog = SimpleNamespace(
        server=nothing,
        role_defect=nothing,
        publication_defect=nothing,
        children_defect=nothing,
        require_table=nothing,
        key_form=lambda *_, **__: (None, None),
    )
    numbers = SimpleNamespace(
        ordering=lambda *_: "cdc_seq" if world.plan.numbered else None,
        last=lambda *_: server.number if world.plan.numbered else None,
    )
    servers: dict[str, Any] = {
        "connect": lambda *_, **__: SimConnection(server, call),
        "NewSlot": lambda _: SimNewSlot(server, call, world._write),
        "Source": lambda *_: SimSource(server),
        "catalog": catalog,
        "numbers": numbers,
        "ordering": lambda *_, **__: {},
        "publication": SimpleNamespace(read=lambda *_, **__: DEFINITION),
        "Cluster": lambda _: cluster,
        "TopicReader": lambda *_, **__: SimTopicReader(topics, call),
        "RecordMaker": lambda *_, **__: maker,
        "existing": lambda *_: {},
        "positions": positions,
        "producer": nothing,
        "time": clock,
        "FEW": _FEW,
        "PORTION": _PORTION,
        "_ROWS": _PORTION,
    }
    modules = [module for name, module in sys.modules.items() if name.startswith("cdc.recovery.")]
    names = [(module, name, one) for module in modules for name, one in servers.items() if name in vars(module)]
    names += [
        (resend, "RecordMaker", lambda *_, **__: maker),
        (resend, "ResendProducer", lambda *_: SimProducer(topics, call)),
        (table, "table_columns", lambda *_, **__: COLUMNS),
        (table, "hidden_rows", nothing),
        (table, "publication", SimpleNamespace(read=lambda *_: {ROW_FILTER: NONE})),
        (table, "key_column", SimpleNamespace(keys=lambda *_, **__: TEXT_KEYS)),
        (purge, "positions", positions),
        (horizons, "numbers", numbers),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in names]
    try:
        for module, name, replacement in names:
            setattr(module, name, replacement)
        yield
    finally:
        for module, name, replaced in before:
            setattr(module, name, replaced)
