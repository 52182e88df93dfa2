"""Decoding of values in both framings, of all versions, and compatibility with Confluent's client."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from cdc.avro import framing
from cdc.consumer.decoding import (
    Decoder,
    Undecodable,
    UnknownFingerprint,
    UnknownFraming,
    UnknownId,
    Unreadable,
    decode,
)
from tests.registry import Double
from tests.unit.avro.test_contracts import folder

V1: dict[str, Any] = {"type": "record", "name": "a.Placed", "fields": [{"name": "n", "type": "int"}]}
V2: dict[str, Any] = {
    "type": "record",
    "name": "a.Placed",
    "fields": [
        {"name": "n", "type": "long"},
        {"name": "raw", "type": "bytes", "default": "\u00ff"},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}], "default": None},
    ],
}
HEADERS = [("id", b"42"), ("eventType", b"Placed")]


def body(schema: Any, value: Any) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, value)
    return buffer.getvalue()


def single(schema: Any, value: Any) -> bytes:
    return framing.header(schema) + body(schema, value)


def confluent(number: int, schema: Any, value: Any) -> bytes:
    return b"\x00" + number.to_bytes(4, "big") + body(schema, value)


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    return folder(tmp_path, {"1.avsc": json.dumps(V1), "2.avsc": json.dumps(V2)})


@pytest.fixture
def registry() -> Iterator[Double]:
    with Double() as double:
        yield double


def test_single_object_framing_is_decoded_with_every_version_in_the_folder(schemas: Path) -> None:
    decoder = Decoder(folder=schemas)
    assert decoder(single(V1, {"n": 1})) == {"n": 1}
    assert decoder(single(V2, {"n": 1, "raw": b"x", "tags": [], "day": None}))["raw"] == b"x"
    assert decoder(None) is None
    assert decode(single(V1, {"n": 2}), schemas=schemas) == decode(single(V1, {"n": 2}), schemas=decoder) == {"n": 2}


@pytest.mark.parametrize("reader", [V2, json.dumps(V2), {"Placed": V2}, {"a.Placed": V2}])
def test_values_are_resolved_to_the_reader_schema_with_defaults(schemas: Path, reader: Any) -> None:
    decoder = Decoder(folder=schemas, reader=reader)
    first = decoder(single(V1, {"n": 1}))
    assert first == {"n": 1, "raw": b"\xff", "tags": [], "day": None}
    first["tags"].append("mine")
    assert decoder(single(V1, {"n": 1}))["tags"] == []


def test_a_reader_of_another_record_is_ignored(schemas: Path) -> None:
    assert Decoder(folder=schemas, reader={"Other": V2})(single(V1, {"n": 1})) == {"n": 1}


def test_confluent_framing_is_decoded_by_a_function_from_id_to_schema() -> None:
    known = {7: json.dumps(V1)}
    assert decode(confluent(7, V1, {"n": 1}), schemas=known.__getitem__, reader=V2)["raw"] == b"\xff"
    with pytest.raises(UnknownId, match="no schema has the id 8"):
        decode(confluent(8, V1, {"n": 1}), schemas=known.__getitem__)


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        (b"\xc3\x01ab", UnknownFraming, "c3016162 is too short for a framing"),
        (b"\x00\x00\x00", UnknownFraming, "000000 is too short for a framing"),
        (b"\xc3\x01" + bytes(8), UnknownFingerprint, "no contract has the fingerprint 0000000000000000; 2 are known"),
        (b"\x00\x00\x00\x00\x07", UnknownId, "schema id 7 needs a registry"),
        (framing.header(V1), Unreadable, "the body does not match a.Placed"),
        (single(V1, {"n": 1}) + b"x", Unreadable, "1 bytes are left over"),
    ],
)
def test_an_undecodable_value_is_reported_with_reason_and_event(
    schemas: Path, value: bytes, kind: type[Undecodable], reason: str
) -> None:
    with pytest.raises(kind, match=reason) as caught:
        Decoder(folder=schemas)(value, HEADERS)
    assert str(caught.value).startswith("Placed 42: ")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("kind", ["application/json", b"application/json; charset=utf-8", "application/ce+json", None])
def test_json_is_parsed_by_its_content_type_or_because_it_can_be(kind: Any) -> None:
    headers = [*HEADERS, ("content-type", kind)] if kind else HEADERS
    assert decode(b'{"n": 12345678901234567890123, "x": [1.5, null]}', headers) == {
        "n": 12345678901234567890123,
        "x": [1.5, None],
    }
    assert decode(None, headers) is None


@pytest.mark.parametrize("kind", ["text/plain", None])
def test_text_is_returned_as_it_is(kind: str | None) -> None:
    headers = {"content-type": kind} if kind else {}
    for text in ("", "plain", "\u00e9 {", "NaN", "[" * 100_000):
        assert decode(text.encode(), headers) == text
    assert decode(b'{"n": 1}', {"content-type": "Text/Plain"}) == '{"n": 1}'


def test_bytes_without_a_content_type_are_returned_as_they_are() -> None:
    assert decode(b"\xff\x00") == b"\xff\x00"
    assert decode(b"{}", {"content-type": "application/octet-stream"}) == b"{}"


@pytest.mark.parametrize(
    ("value", "content_type", "kind", "reason"),
    [
        (b"{", "application/json", Unreadable, "the value is not application/json: Expecting property name"),
        (b"NaN", "application/json", Unreadable, "NaN is not JSON"),
        (b"", "application/json", Unreadable, "the value is not application/json"),
        (b"[" * 100_000, "application/json", Unreadable, "the value is not application/json"),
        (b"\xff", "text/plain", Unreadable, "the value is not text/plain: 'utf-8' codec"),
        (b"{}", "avro/binary", UnknownFraming, "7b7d is not a known framing"),
        (b"", "avro/binary", UnknownFraming, "an empty value is not a known framing"),
    ],
)
def test_a_value_that_does_not_match_its_content_type_is_reported(
    value: bytes, content_type: str, kind: type[Undecodable], reason: str
) -> None:
    with pytest.raises(kind, match=reason) as caught:
        decode(value, iter([*HEADERS, ("content-type", content_type.encode())]))
    assert str(caught.value).startswith("Placed 42: ")


def test_framed_avro_is_recognised_whatever_its_content_type(schemas: Path) -> None:
    for headers in ([], [("content-type", b"application/json")], [("content-type", b"avro/binary")]):
        assert Decoder(folder=schemas)(single(V1, {"n": 1}), headers) == {"n": 1}


def test_an_incompatible_reader_schema_is_reported(schemas: Path) -> None:
    reader = {**V1, "fields": [{"name": "n", "type": "string"}]}
    with pytest.raises(Unreadable, match=r"\$\.n: int cannot be read as string"):
        Decoder(folder=schemas, reader=reader)(single(V1, {"n": 1}))


def test_confluents_serializer_and_the_decoder_are_compatible(registry: Double) -> None:
    client = SchemaRegistryClient({"url": registry.url})
    context = SerializationContext("notes", MessageField.VALUE)
    written = AvroSerializer(client, json.dumps(V1))({"n": 5}, context)
    assert written is not None
    assert Decoder(registry_url=registry.url)(written) == {"n": 5}
    number = int.from_bytes(written[1:5], "big")
    assert AvroDeserializer(client)(confluent(number, V1, {"n": 6}), context) == {"n": 6}
    with pytest.raises(UnknownId):
        Decoder(registry_url=registry.url)(confluent(99, V1, {"n": 6}))
    client.close()


def test_a_schema_with_references_is_resolved(registry: Double) -> None:
    client = SchemaRegistryClient({"url": registry.url})
    user = {"type": "record", "name": "a.User", "fields": [{"name": "placed", "type": "a.Placed"}]}
    client.register_schema("a.Placed", Schema(json.dumps(V1), "AVRO"))
    reference = SchemaReference("a.Placed", "a.Placed", 1)
    number = client.register_schema("users", Schema(json.dumps(user), "AVRO", [reference]))
    whole = {**user, "fields": [{"name": "placed", "type": V1}]}
    value = confluent(number, whole, {"placed": {"n": 3}})
    assert Decoder(registry_url=registry.url)(value) == {"placed": {"n": 3}}
    assert Decoder(registry_url=registry.url, reader=whole)(value) == {"placed": {"n": 3}}
    client.close()
