"""Ports on which nothing listens, for programs that are told where to listen."""

import random

from cdc.local.ports import FIRST, is_free


def free_port() -> int:
    """Return a free port below those of stacks and below the kernel's range for outgoing connections.

    Other tests connect to servers all the time: any port of that range may be in use a moment later.
    """
    return next(port for port in iter(lambda: random.randrange(10_000, FIRST), 0) if is_free(port))
