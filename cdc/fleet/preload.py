"""Loads what every child needs, in the process that they are forked from, which runs nothing and has no threads.

That process ends with the last of its clients, not by signals: a terminal and some supervisors send theirs to all
processes of a group.
"""

import gc
import importlib
import os
import signal
from typing import Final

import cdc.app.polling
import cdc.app.publishing
import cdc.recovery.automatic
import cdc.status.from_metrics  # noqa: F401 - here to be shared
from cdc.errors import ConfigError
from cdc.records.fastpath import select

LOADED_BY: Final = os.getpid()
"""The process that imported this; a child that finds its own was forked before."""

signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    select.choose("auto")
except ConfigError:  # which is the children's to report
    importlib.invalidate_caches()
gc.collect()
gc.freeze()
