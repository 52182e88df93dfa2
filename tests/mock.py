"""librdkafka's mock cluster, for errors that a real broker does not give on demand.

It says what a client makes of an error, never what became of records: see `rdkafka_mock.h` of librdkafka.
"""

import ctypes
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import confluent_kafka

PRODUCE: Final = 0
_PRODUCER: Final = 0


def _library() -> Any:
    (path,) = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka*.so*")
    library = ctypes.CDLL(str(path))
    for name, result, arguments in (
        ("rd_kafka_new", ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
        ("rd_kafka_destroy", None, [ctypes.c_void_p]),
        ("rd_kafka_mock_cluster_new", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
        ("rd_kafka_mock_cluster_destroy", None, [ctypes.c_void_p]),
        ("rd_kafka_mock_cluster_bootstraps", ctypes.c_char_p, [ctypes.c_void_p]),
        ("rd_kafka_mock_topic_create", ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class MockCluster:
    """A cluster of one broker, with one topic of one partition; a context manager."""

    def __init__(self, topic: str) -> None:
        self._library = _library()
        self._handle = self._library.rd_kafka_new(_PRODUCER, None, None, 0)
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, 1)
        self.bootstrap: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        assert self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), 1, 1) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._handle)

    def push(self, api: int, *codes: int) -> None:
        """Answer the next requests of a kind with these errors."""
        push = self._library.rd_kafka_mock_push_request_errors
        push(
            ctypes.c_void_p(self._cluster),
            ctypes.c_int16(api),
            ctypes.c_size_t(len(codes)),
            *map(ctypes.c_int, codes),
        )
