"""What the registry's double knows and decides: schemas by id, subjects, versions, compatibility."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import fastavro

LEVELS = ("NONE", *(f"{kind}{tail}" for kind in ("BACKWARD", "FORWARD", "FULL") for tail in ("", "_TRANSITIVE")))
Rule = Callable[[str, list[str], str], list[str]]  # from new schema, registered ones and level to what does not fit


class Refusal(Exception):
    """An error that the API documents."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class Schema:
    """What an id stands for."""

    text: str
    references: list[Any]
    kind: str = "AVRO"

    def shown(self) -> dict[str, Any]:
        kind = {} if self.kind == "AVRO" else {"schemaType": self.kind}
        return {"schema": self.text, **kind} | ({"references": self.references} if self.references else {})


@dataclass
class Store:
    """What a registry knows."""

    rule: Rule
    schemas: dict[int, Schema] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)  # ids; a version is the place, from 1
    levels: dict[str, str] = field(default_factory=lambda: {"": "BACKWARD"})

    def foreign(self, subject: str, text: str, kind: str = "AVRO") -> None:
        """Hold what another team, another registry or an older version of one has put there, unchecked."""
        number = len(self.schemas) + 1
        self.schemas[number] = Schema(text, [], kind)
        self.subjects[subject] = [number]

    def parsed(self, body: Any) -> Schema:
        """Keeps keys in another order than they came in, as any registry may."""
        references = body.get("references") or []
        if body.get("schemaType", "AVRO") != "AVRO":
            raise Refusal(422, 42201, "Invalid schema type")
        try:
            schema = json.loads(body["schema"])
            fastavro.parse_schema(schema, named_schemas=self.named(references))
        except Exception as error:
            raise Refusal(422, 42201, f"Invalid schema {body.get('schema')}: {error}") from None
        return Schema(json.dumps(schema, sort_keys=True, separators=(",", ":")), references)

    def named(self, references: list[Any]) -> dict[str, Any]:
        names: dict[str, Any] = {}
        for each in references:
            found = self.schemas[self.version(each["subject"], str(each["version"]))[1]]
            names |= self.named(found.references)
            fastavro.parse_schema(json.loads(found.text), named_schemas=names)
        return names

    def known(self, subject: str) -> list[int]:
        if subject not in self.subjects:
            raise Refusal(404, 40401, f"Subject '{subject}' not found.")
        return self.subjects[subject]

    def version(self, subject: str, version: str) -> tuple[int, int]:
        """(version, id)"""
        ids = self.known(subject)
        number = len(ids) if version in ("latest", "-1") else int(version) if version.isdigit() else 0
        if not 1 <= number <= len(ids):
            raise Refusal(404, 40402, f"Version {version} not found.")
        return number, ids[number - 1]

    def register(self, subject: str, schema: Schema) -> int:
        number = next((each for each, known in self.schemas.items() if known == schema), len(self.schemas) + 1)
        ids = self.subjects.get(subject, [])
        if number not in ids:
            problems = self.problems(subject, schema, ids)
            if problems:
                message = f'Schema being registered is incompatible with an earlier schema for subject "{subject}"'
                raise Refusal(409, 409, f"{message}, details: [{', '.join(problems)}]")
            self.schemas[number] = schema
            self.subjects.setdefault(subject, []).append(number)
        return number

    def lookup(self, subject: str, schema: Schema) -> dict[str, Any]:
        for version, number in enumerate(self.known(subject), 1):
            if self.schemas[number] == schema:
                return {"subject": subject, "version": version, "id": number, **schema.shown()}
        raise Refusal(404, 40403, "Schema not found")

    def problems(self, subject: str, schema: Schema, ids: list[int]) -> list[str]:
        level = self.levels.get(subject, self.levels[""])
        if level == "NONE" or not ids:
            return []
        against = ids if level.endswith("_TRANSITIVE") else ids[-1:]
        return self.rule(schema.text, [self.schemas[number].text for number in against], level)
