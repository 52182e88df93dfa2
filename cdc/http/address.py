"""Opens the listening sockets of `[http] listen`."""

import errno
import socket
from typing import Final

from cdc.config.hostport import ALL, listen_address
from cdc.errors import ConfigError

_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_WAITING: Final = 64  # connections that the kernel keeps until they are accepted


def text(bound: socket.socket) -> str:
    """Format the address of a listening socket as host:port."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(listen: str) -> list[socket.socket]:
    """Open sockets that listen at every address of the host; with port 0, at the same free port.

    Raises ConfigError when the port is taken or not allowed, or no address is one of this machine's.
    """
    host, port = listen_address(listen)
    sockets: list[socket.socket] = []
    refused: OSError | None = None
    try:
        for family, address in _addresses(listen, host, port):
            try:
                sockets.append(_bound(family, (address, port)))
            except OSError as error:
                # localhost and "all" resolve to an IPv6 address even on a machine without IPv6.
                if error.errno not in _NOT_HERE:
                    raise
                refused = error
            else:
                port = sockets[0].getsockname()[1]
        if not sockets and refused:
            raise refused
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise _explained(listen, error) from error
    return sockets


def _addresses(listen: str, host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(
            None if host in ALL else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"[http] listen: {listen!r}: host {host!r} cannot be resolved: {reason}") from error
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _bound(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not block a restart
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # each family has a socket of its own
        bound.bind(address)
        bound.listen(_WAITING)
    except OSError:
        bound.close()
        raise
    return bound


def _explained(listen: str, error: OSError) -> ConfigError:
    message, hint = f"[http] listen: cannot listen on {listen}: ", ""
    if error.errno == errno.EADDRINUSE:
        message += "the port is taken"
        hint = f"choose another port, or see who has it: ss -ltnp 'sport = :{listen_address(listen)[1]}'"
    elif error.errno in _NOT_HERE:
        message += "this machine has no such address"
        hint = "take one of its own, or 127.0.0.1, or 0.0.0.0 for all"
    elif error.errno == errno.EACCES:
        message += "ports below 1024 are for root"
        hint = "choose a port above, as in 127.0.0.1:8080"
    else:
        message += str(error.strerror or error)
    return ConfigError(message, hint=hint)
