"""How memory is handled beneath us, for a road that makes many small things in bursts and drops them soon."""

import contextlib
import ctypes
import gc
from typing import Final

_COLLECT_AFTER: Final = 20_000  # containers more than before
_M_MXFAST: Final = 1  # of glibc's malloc.h


def tune() -> None:
    """To be called once, when all is built that lives as long as the process.

    No collection of Python's need look at that again. And a burst makes thousands of containers that end with it, in no
    cycle: to look for one after each 700 costs 3 % of the whole.

    glibc keeps small chunks that were freed apart (`mallopt`, M_MXFAST) and joins all of them whenever a large one is
    freed, as librdkafka does with each batch. To join each at once is 0.2 us less for an event, of 4.9; other C
    libraries know no such thing. <https://man7.org/linux/man-pages/man3/mallopt.3.html>
    """
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MXFAST, 0)
