"""Records as no Python client can produce them: with headers whose names are bytes, through librdkafka itself."""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import confluent_kafka

_PRODUCER: Final = 0
_TOPIC, _VALUE, _MSGFLAGS, _HEADER, _END = 1, 4, 7, 9, 0
_COPY: Final = 2


def produce(kafka: str, topic: str, headers: Sequence[tuple[bytes, bytes]], times: int = 1) -> None:
    """Produce records with the value `foreign` without a key, and wait for their delivery."""
    (path,) = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka*.so*")
    library: Any = ctypes.CDLL(str(path))
    library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = ctypes.c_void_p
    error = ctypes.create_string_buffer(512)
    settings = ctypes.c_void_p(library.rd_kafka_conf_new())
    assert library.rd_kafka_conf_set(settings, b"bootstrap.servers", kafka.encode(), error, 512) == 0, error.value
    producer = ctypes.c_void_p(library.rd_kafka_new(_PRODUCER, settings, error, ctypes.c_size_t(512)))
    arguments: list[Any] = [_TOPIC, topic.encode(), _MSGFLAGS, _COPY]
    arguments += [_VALUE, b"foreign", ctypes.c_size_t(len(b"foreign"))]
    for name, value in headers:
        arguments += [_HEADER, name, value, ctypes.c_ssize_t(len(value))]
    for _ in range(times):
        assert library.rd_kafka_producev(producer, *arguments, _END) == 0
    assert library.rd_kafka_flush(producer, 30_000) == 0
    library.rd_kafka_destroy(producer)
