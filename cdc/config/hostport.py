"""Parse host:port addresses in settings."""

from typing import Final

from cdc.errors import ConfigError

ALL: Final = ("", "*")
"""Hosts that mean all addresses of the machine."""


def parse(listen: str) -> tuple[str, int]:
    """Return (host, port) of `host:port`, `[IPv6 address]:port` or `:port`. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{listen!r}: write an IPv6 address in brackets, as in [::1]:8080")
    if not colon or not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise ValueError(f"{listen!r} is not host:port, such as 127.0.0.1:8080 or [::1]:8080")
    return host, int(port)


def listen_address(listen: str) -> tuple[str, int]:
    """Return (host, port) of `[http] listen`, in the forms that `parse` accepts. Raises ConfigError."""
    try:
        return parse(listen)
    except ValueError as error:
        raise ConfigError(f"[http] listen: {error}") from None
