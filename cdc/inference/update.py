"""Add the fields that an existing contract lacks, and change nothing else of it.

Each new field is optional and stands at the end of its record, so that old and new contract read each other's data.
Values that the contract refuses for another reason stay refused: the caller encodes every row to find them.
"""

import copy
from typing import Any

from cdc.avro.files import NAMED, defined, full_name
from cdc.inference.schema import Inference, Remark, Schema, Wishes
from cdc.inference.summary import Objects, Summary


def update(written: Schema, objects: Objects, wishes: Wishes, taken: set[str]) -> tuple[Schema, list[Remark]]:
    """Return the contract of a file with the missing fields, and the remarks about these."""
    schema = copy.deepcopy(written)
    adding = _Adding(schema, wishes, taken)
    adding.visit(schema, Summary(objects=objects), "$", "")
    return schema, adding.remarks


class _Adding:
    def __init__(self, schema: Schema, wishes: Wishes, taken: set[str]) -> None:
        self._types = dict(defined(schema, ""))
        self._wishes = wishes
        self._taken = taken
        self.remarks: list[Remark] = []

    def visit(self, schema: Schema, summary: Summary, path: str, namespace: str) -> None:
        """Add to the records of a type what the values that it took lack."""
        if isinstance(schema, list):
            records = [branch for branch in schema if self._kind(branch, namespace) in ("record", "error")]
            if len(records) > 1:
                return  # which of them a value belongs to is the mapping's decision
            for branch in schema:
                self.visit(branch, summary, path, namespace)
        elif isinstance(schema, str):
            if (found := self._find(schema, namespace)) is not None:
                self.visit(found, summary, path, namespace)
        elif not isinstance(schema["type"], str) or schema["type"] not in (*NAMED, "array", "map"):
            self.visit(schema["type"], summary, path, namespace)
        elif schema["type"] == "array" and summary.items:
            self.visit(schema["items"], summary.items, f"{path}[]", namespace)
        elif schema["type"] == "map" and summary.objects:
            self.visit(schema["values"], summary.objects.all_values(), f"{path}{{}}", namespace)
        elif schema["type"] in ("record", "error") and summary.objects:
            self._record(schema, summary.objects, path, namespace)

    def _record(self, schema: dict[str, Any], objects: Objects, path: str, namespace: str) -> None:
        full = full_name(schema, namespace)
        inner, _, name = full.rpartition(".")
        known: set[str] = set()
        for field in schema["fields"]:
            names = {field["name"], *field.get("aliases", ())}
            known |= names
            for each in names & objects.fields.keys():
                self.visit(field["type"], objects.fields[each], f"{path}.{field['name']}", inner)
        inference = Inference(inner, self._wishes, self._taken, self.remarks)
        schema["fields"] += inference.fields(objects, name, path, frozenset(known))

    def _find(self, name: str, namespace: str) -> Schema | None:
        """Return the definition in this file that a name refers to; types of other files are left alone."""
        return self._types.get(name if "." in name or not namespace else f"{namespace}.{name}")

    def _kind(self, schema: Schema, namespace: str) -> str | None:
        found = self._find(schema, namespace) if isinstance(schema, str) else schema
        return str(found["type"]) if isinstance(found, dict) else None
