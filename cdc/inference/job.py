"""Infers a contract per event type: summarise its rows, make or complete the contract, and encode every row with it.

Rows are read twice in one snapshot and are not kept, so that memory grows with fields and not with rows. A contract is
accepted if every row is encoded, and with a new contract also decoded to the same JSON value; else nothing is written
for its type.
"""

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from cdc.avro import contracts, files
from cdc.avro.compiled.payloads import parse_exactly
from cdc.avro.contracts import Contract, Contracts
from cdc.avro.decode import Reading
from cdc.avro.files import Definition
from cdc.avro.mapping.rules import Rules
from cdc.config.settings import Settings
from cdc.errors import ConfigError
from cdc.inference import names
from cdc.inference.rows import Table, TypeRows
from cdc.inference.same import same
from cdc.inference.schema import Remark, Wishes, record
from cdc.inference.summary import Objects
from cdc.inference.update import update
from cdc.postgres.rows import OutboxRow
from cdc.quantities import plural

SHOWN: Final = 100  # rows that do not match and are reported one by one; the others are counted


@dataclass
class Made:
    """What became of one contract; `done` is written, updated, unchanged, kept, refused or held back.

    A contract that existed is kept unless it was to be updated. An update with a problem holds all contracts back.
    `text` is the file's content if it is written.
    """

    name: str
    path: Path
    existing: Definition | None
    done: str = "refused"
    remarks: list[Remark] = field(default_factory=list)
    objects: Objects = field(default_factory=lambda: Objects(is_root=True))
    text: str = ""


@dataclass
class Outcome:
    """One event type: its rows in the table, the number of those that were read, and its contract."""

    event_type: str
    rows: TypeRows
    contract: Made
    count: int = 0


@dataclass(frozen=True)
class Problem:
    """A row that an inferred contract cannot hold, or an event type for which none was written (without `row_id`)."""

    event_type: str
    problem: str
    row_id: str | None = None


@dataclass(frozen=True)
class Report:
    """Outcomes by event type, problems, and the entries that [avro] types needs so that events find their contracts."""

    outcomes: list[Outcome]
    problems: list[Problem]
    types: dict[str, str]


class Job:
    """One run of the inference over a table, into a folder of contracts.

    `sample` is the number of rows per event type, None for all. Raises ConfigError if the contracts there are unusable.
    """

    def __init__(
        self, settings: Settings, table: Table, folder: Path, *, sample: int | None, wishes: Wishes, updates: bool
    ) -> None:
        self._settings = settings
        self._table = table
        self._folder = folder
        self._sample = sample
        self._wishes = wishes
        self._updates = updates
        self._definitions = files.read(folder) if folder.is_dir() else []
        self._rules: Rules = settings.avro.rules
        self._contracts = self._resolving(self._definitions, settings.avro.types)
        self._taken = {name for each in self._definitions for name, _ in files.defined(each.schema, "")}
        self._made: dict[str, Made] = {}
        self._problems: list[Problem] = []

    def run(self, types: tuple[str, ...]) -> Report:
        """Infer the contracts of these event types, or of all in the table, and write the files."""
        counted = self._table.types(types)
        absent = [
            f"table {self._settings.outbox.table} has no row of type {each} with a payload"
            for each in types
            if each not in counted
        ]
        if absent:
            raise ConfigError(
                *absent, hint="event types are the values of the column that [outbox] columns maps to type"
            )
        outcomes = [Outcome(each, rows, self._begin(each, counted.keys())) for each, rows in counted.items()]
        active = {each.event_type: each for each in outcomes if each.contract.done != "kept"}
        for row in self._rows(active):
            self._observe(active[str(row.type)], row)
        made = list({each.contract.name: each.contract for each in active.values()}.values())
        for contract in made:
            try:
                self._make(contract, [each for each in active.values() if each.contract is contract])
            except RecursionError:
                raise ConfigError(
                    f"payloads of {contract.name} are nested too deeply for a contract",
                    hint="name other types by --type",
                ) from None
        definitions = self._parsed(made)
        self._verify(active, {each.name: each for each in contracts.compiled(definitions, self._rules)})
        for contract in made:
            if contract.done in ("written", "updated"):
                if self._updates and self._problems:
                    contract.done = "held back"
                else:
                    _write(contract)
        return Report(outcomes, self._problems, self._entries(outcomes, definitions))

    def _begin(self, event_type: str, event_types: Set[str]) -> Made:
        if event_type in self._contracts.ambiguous and event_type not in self._contracts:
            raise ConfigError(self._contracts.missing(event_type))
        found = self._contracts.get(event_type)
        wanted = found.name if found else self._settings.avro.types.get(event_type, event_type)
        if wanted not in self._made:
            name = names.valid(wanted)
            existing = self._contracts.definitions.get(wanted)
            if name != wanted and name not in event_types:  # of an earlier run whose entry is not in [avro] types yet
                existing = self._contracts.definitions.get(name)
            if existing and existing.is_contract:
                made = Made(existing.name, existing.path, existing, "refused" if self._updates else "kept")
            else:
                name = names.free(name, self._taken)
                made = Made(name, names.file(self._folder, name), None)
            self._made[wanted] = made
        return self._made[wanted]

    def _rows(self, active: dict[str, Outcome]) -> Iterable[OutboxRow]:
        if not active:
            return
        for row in self._table.read(tuple(active), self._sample):
            # An empty payload is a tombstone, which needs no contract.
            if not self._settings.outbox.tombstones or (row.payload or b"").strip():
                yield row

    def _observe(self, outcome: Outcome, row: OutboxRow) -> None:
        outcome.count += 1
        try:
            value = parse_exactly(row.payload or b"")
            if isinstance(value, dict):
                outcome.contract.objects.observe(value)
        except (ValueError, RecursionError, ArithmeticError):
            pass  # no contract can hold it: encoding it fails, and gives the reason

    def _make(self, made: Made, outcomes: list[Outcome]) -> None:
        """Make the text of a contract; `done` is what is to be done if every row matches it."""
        if made.existing:
            written = orjson.loads(made.existing.text)
            schema, made.remarks = update(written, made.objects, self._wishes, self._taken)
            made.done = "unchanged" if schema == written else "updated"
            made.text = made.existing.text if schema == written else f"{names.pretty(schema)}\n"
            return
        schema, made.remarks = record(made.objects, made.name, _origin(outcomes), self._wishes, self._taken)
        made.done = "written"
        made.text = f"{names.pretty(schema)}\n"

    def _parsed(self, made: list[Made]) -> list[Definition]:
        texts = {str(each.path): each.text for each in self._definitions}
        for each in made:
            if each.existing is None and (str(each.path) in texts or each.path.exists()):
                raise ConfigError(f"{each.path} exists, and is not the contract {each.name}", hint="move it")
            texts[str(each.path)] = each.text
        return files.parse(texts)

    def _verify(self, active: dict[str, Outcome], compiled: dict[str, Contract]) -> None:
        """Encode every row; a row that does not match is a problem, and nothing is written for its type."""
        unfit: Counter[str] = Counter()
        readings = {name: Reading(contract.schema) for name, contract in compiled.items()}
        for row in self._rows(active):
            made = active[str(row.type)].contract
            reading = None if made.existing else readings[made.name]
            if problem := _problem(row.payload or b"", compiled[made.name], reading):
                made.done = "refused"
                unfit[str(row.type)] += 1
                if unfit.total() <= SHOWN:
                    self._problems.append(Problem(str(row.type), problem, row.id))
        for event_type, count in unfit.items():
            self._problems.append(Problem(event_type, _reason(active[event_type].contract, count)))

    def _entries(self, outcomes: list[Outcome], definitions: list[Definition]) -> dict[str, str]:
        """Return the entries that [avro] types lacks."""
        absent = {
            each.contract.name
            for each in outcomes
            if each.contract.done in ("refused", "held back") and not each.contract.existing
        }
        found = self._resolving([each for each in definitions if each.name not in absent], self._settings.avro.types)
        return {
            each.event_type: each.contract.name
            for each in outcomes
            if each.contract.name not in absent
            and ((contract := found.get(each.event_type)) is None or contract.name != each.contract.name)
        }

    def _resolving(self, definitions: list[Definition], types: dict[str, str]) -> Contracts:
        """Return contracts by event type, without entries of [avro] types whose contract does not exist yet."""
        compiled = contracts.compiled(definitions, self._rules)
        known = Contracts(compiled, {}, str(self._folder), definitions)
        there = {event_type: name for event_type, name in types.items() if name in known}
        return Contracts(compiled, there, str(self._folder), definitions)


def _origin(outcomes: list[Outcome]) -> str:
    count, total = sum(each.count for each in outcomes), sum(each.rows.total for each in outcomes)
    since = min((each.rows.since for each in outcomes if each.rows.since), default=None)
    of = f" of {total}" if count < total else ""
    return f"Inferred from {count}{of} rows{f' since {since}' if since else ''}."


def _problem(payload: bytes, contract: Contract, reading: Reading | None) -> str:
    """Return why a payload does not match, or is not decoded to the same value if there is a reading; else empty."""
    try:
        body = contract.encode(payload, b"")
        if reading is None or same(parse_exactly(payload), reading.value(body)):
            return ""
    except (ValueError, RecursionError, ArithmeticError) as error:
        return str(error)
    return "the encoded value is not decoded to the same JSON value"


def _reason(made: Made, count: int) -> str:
    if made.existing:
        return f"{plural(count, 'row')} do not match the contract with new fields added; {made.path} is unchanged"
    if made.objects.refused is not None:
        return (
            f"no contract was written, because Avro does not accept {made.objects.refused!r} as the name of a field:"
            ' rename it in the payload, or use [avro] unknown_types = "envelope"'
        )
    return f"no contract was written, because no contract can hold {plural(count, 'row')}"


def _write(made: Made) -> None:
    try:
        made.path.parent.mkdir(parents=True, exist_ok=True)
        if made.existing:
            beside = made.path.with_name(f".{made.path.name}.new")  # hidden files are not contracts
            beside.write_text(made.text, encoding="utf-8")
            beside.replace(made.path)
        else:
            with made.path.open("x", encoding="utf-8") as file:
                file.write(made.text)
    except OSError as error:
        raise ConfigError(f"{made.path} cannot be written: {error.strerror}") from None
