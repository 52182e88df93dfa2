"""A broker whose clients pass a proxy."""

from collections.abc import Callable

from cdc.local.kafka import KafkaBroker
from cdc.local.ports import Ports
from tests.torture.connection import Frames
from tests.torture.proxy import Loop, Proxy


def before(loop: Loop, broker: KafkaBroker, frames: Callable[[], Frames]) -> Proxy:
    """A proxy for clients of a broker that starts later; the brokers talk to each other past it."""
    port = Ports(broker.home / "ports.json").get(f"proxied-{broker.node_id}")
    proxy = Proxy(loop, ("127.0.0.1", port), frames)
    node = broker.node
    broker.settings = {
        "listeners": f"PLAINTEXT://127.0.0.1:{node.port},PROXIED://127.0.0.1:{port},"
        f"CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{node.port},PROXIED://127.0.0.1:{proxy.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
    }
    return proxy
