"""Contracts from a registry that other teams use too."""

import json

import pytest

from cdc.avro.contracts import Contracts
from cdc.avro.mapping.rules import Rules
from cdc.config.settings import Settings
from cdc.errors import ConfigError
from cdc.registry import source
from cdc.registry.client import Registered
from cdc.registry.errors import RegistryError


def text(name: str, kind: str = "string") -> str:
    field = {"name": "n", "type": kind}
    return json.dumps({"type": "record", "name": name, "namespace": "shop", "fields": [field]})


OURS = {"outbox.event.order-shop.Placed": ("AVRO", text("Placed"))}
OTHERS = {
    "keys-key": ("AVRO", '"string"'),
    "theirs-value": ("JSON", '{"type": "object"}'),
    "proto-value": ("PROTOBUF", 'syntax = "proto3";'),
    "broken-value": ("AVRO", text("Broken", "no such type")),
    "clash-value": ("AVRO", text("Placed", "long")),
}


class Twin:
    """A registry in memory."""

    url = "http://twin"

    def __init__(self, subjects: dict[str, tuple[str, str]], forbidden: str = "") -> None:
        self._subjects = subjects
        self._forbidden = forbidden

    def subjects(self) -> list[str]:
        return list(self._subjects)

    def latest(self, subject: str) -> Registered | None:
        if subject == self._forbidden:
            raise RegistryError("forbidden", status=403)
        kind, schema = self._subjects[subject]
        return Registered(subject, 1, 1, schema, kind)


def read(twin: Twin, *selected: str) -> Contracts:
    settings = Settings.model_validate({"schema_registry": {"subjects": selected}})
    return source.read(twin, settings, Rules())  # type: ignore[arg-type]


def test_case_d2_unusable_subjects_of_others_are_passed_over() -> None:
    found = read(Twin(OTHERS | OURS, forbidden="theirs-value"))
    assert list(found.definitions) == ["shop.Placed"]
    assert sorted(found.passed_over) == ["broken-value", "clash-value", "theirs-value"]


def test_case_d2_an_own_subject_that_is_unusable_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no such type"):
        read(Twin({"outbox.event.order-shop.Placed": ("AVRO", text("Placed", "no such type"))}))


def test_case_d2_only_selected_subjects_are_read_and_these_are_own_ones() -> None:
    assert read(Twin(OTHERS | OURS), "outbox.*").passed_over == {}
    with pytest.raises(ConfigError):
        read(Twin(OTHERS | OURS), "outbox.*", "broken-*")
