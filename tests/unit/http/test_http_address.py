"""`[http] listen`: what it may say, and what is told when it cannot be had."""

import contextlib
import errno
import socket
from collections.abc import Iterator

import pytest

from cdc.config.hostport import listen_address
from cdc.errors import ConfigError
from cdc.http import address

IPV6 = socket.has_ipv6 and socket.getaddrinfo("::1", 0)


@contextlib.contextmanager
def bound(listen: str) -> Iterator[list[str]]:
    sockets = address.bind(listen)
    try:
        yield [address.text(each) for each in sockets]
    finally:
        for each in sockets:
            each.close()


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:8080", ("::1", 8080)),
        (":8080", ("", 8080)),
        ("*:65535", ("*", 65535)),
    ],
)
def test_host_and_port_are_separated(listen: str, expected: tuple[str, int]) -> None:
    assert listen_address(listen) == expected


@pytest.mark.parametrize("listen", ["", "8080", "localhost", "localhost:", "h:http", "h:-1", "h:65536", "h:1e3", "h:٣"])
def test_an_invalid_address_is_refused_with_an_example(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"is not host:port, such as 127\.0\.0\.1:8080"):
        listen_address(listen)


def test_an_ipv6_address_without_brackets_is_refused() -> None:
    with pytest.raises(ConfigError, match="IPv6 address in brackets"):
        listen_address("::1:8080")


def test_port_0_is_a_free_one() -> None:
    with bound("127.0.0.1:0") as (one,), bound("127.0.0.1:0") as (other,):
        assert one != other
        assert one.startswith("127.0.0.1:")


@pytest.mark.skipif(not IPV6, reason="this machine has no IPv6")
def test_every_address_of_a_host_has_the_same_port() -> None:
    with bound("[::1]:0") as (one,):
        assert one.startswith("[::1]:")
    with bound(":0") as found:
        assert {text.rpartition(":")[0] for text in found} == {"0.0.0.0", "[::]"}
        assert len({text.rpartition(":")[2] for text in found}) == 1


def test_a_taken_port_is_refused_with_a_command_that_finds_its_owner() -> None:
    with bound("127.0.0.1:0") as (taken,):
        port = taken.rpartition(":")[2]
        with pytest.raises(ConfigError) as caught:
            address.bind(taken)
    assert str(caught.value) == (
        f"[http] listen: cannot listen on {taken}: the port is taken; choose another port, or see who has it:"
        f" ss -ltnp 'sport = :{port}'"
    )


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match="this machine has no such address; take one of its own"):
        address.bind("192.0.2.1:8080")


def test_an_unknown_host_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"host 'no\.such\.host\.invalid' cannot be resolved"):
        address.bind("no.such.host.invalid:8080")


def test_a_privileged_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(address, "_bound", refuse)
    with pytest.raises(ConfigError, match="ports below 1024 are for root"):
        address.bind("127.0.0.1:80")


def test_an_address_family_that_is_missing_does_not_matter_while_there_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = address._bound

    def without_ipv6(family: socket.AddressFamily, where: tuple[str, int]) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return real(family, where)

    monkeypatch.setattr(address, "_bound", without_ipv6)
    with bound(":0") as (only,):
        assert only.startswith("0.0.0.0:")
