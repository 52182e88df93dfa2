"""Where librdkafka logs to: ours, without what is no news.

Its warnings about settings are about those that `properties` chose on purpose.
"""

import logging

log = logging.getLogger(__name__)
log.addFilter(lambda record: not (record.getMessage().startswith("CONFWARN") or _is_usual(record.getMessage())))


def _is_usual(message: str) -> bool:
    """Whether a predecessor's transaction is being ended: that takes a moment, and librdkafka asks again."""
    return message.startswith("GETPID") and message.endswith("retrying")


silent = logging.Logger("silent")  # known to nobody: for clients that only try something
silent.addHandler(logging.NullHandler())
