"""Check the contracts, the Schema Registry, and whether the rows of the outbox match their contracts."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from cdc.app.contracts import encoder, load
from cdc.avro.byte_texts import ADVICE
from cdc.avro.contracts import Contract, Contracts
from cdc.avro.framing import HEADER_SIZE
from cdc.avro.subjects import subject
from cdc.checks.finding import Notes
from cdc.config.settings import Settings
from cdc.errors import CdcError, ConfigError
from cdc.postgres.rows import OutboxRow
from cdc.quantities import plural
from cdc.records.fastpath import select

if TYPE_CHECKING:
    from cdc.registry.client import Registry

HEADER: Final = bytes(HEADER_SIZE)  # no framing is longer
REGISTER: Final = "cdc-publisher schema register"
_SHOWN: Final = 5


class ContractFacts(NamedTuple):
    """The contracts and the registry's client; None if they could not be read, or no registry is configured."""

    contracts: Contracts | None = None
    registry: "Registry | None" = None


def check(notes: Notes, settings: Settings) -> ContractFacts:
    """Check accelerator, registry and contracts. The caller must close the returned `registry`."""
    _accelerator(notes, settings)
    registry = _registry(notes, settings)
    if settings.avro.source == "registry" and registry is None:
        return ContractFacts()  # registry_reachable has reported it
    try:
        loaded = load(settings, registry)
    except ConfigError as error:
        notes.fails(
            "contracts",
            "; ".join(error.problems),
            hint=error.hint or "fix these files, or point [avro] schemas at another folder",
        )
        return ContractFacts(None, registry)
    except CdcError as error:
        notes.fails("contracts", error.message, hint=error.hint)
        return ContractFacts(None, registry)
    number = len({contract.name for contract in loaded.values()})
    if not number and settings.record.value == "text":
        notes.passes("contracts", "there are none: records that are text need none")
    elif number:
        where = f"registry {registry.url}" if settings.avro.source == "registry" and registry else settings.avro.schemas
        notes.passes("contracts", f"{plural(number, 'contract')} in {where}{_passed_over(loaded)}")
    else:
        text = f"no contracts in {settings.avro.schemas}: only bytea payloads, which are Avro already, can be sent"
        notes.warns(
            "contracts", text, hint="add one .avsc file for each event type, or set [avro] schemas to another folder"
        )
    return ContractFacts(loaded, registry)


def _passed_over(loaded: Contracts) -> str:
    passed = [f"{name} ({reason})" for name, reason in loaded.passed_over.items()]
    more = f" and {len(passed) - _SHOWN} more" if len(passed) > _SHOWN else ""
    return f"; passed over: {', '.join(passed[:_SHOWN])}{more}" if passed else ""


def _accelerator(notes: Notes, settings: Settings) -> None:
    try:
        chosen = select.choose(settings.delivery.accelerator)
    except ConfigError as error:
        notes.fails("accelerator", error.message, hint=error.hint)
        return
    missing = select.is_missing(settings.delivery.accelerator, chosen)
    advice = f"; to raise throughput, install the native accelerator: {select.INSTALL}" if missing else ""
    notes.passes("accelerator", f"records are encoded by {chosen.name}{advice}")


def _registry(notes: Notes, settings: Settings) -> "Registry | None":
    if not settings.schema_registry.url:
        return None
    # Imported here: the client takes 0.3 s to import, and its packages are an extra.
    try:
        from cdc.registry.client import Registry
    except ImportError as error:
        fix = "pip install 'cdc-publisher[registry]'"
        notes.fails("registry_reachable", f"[schema_registry] needs the extra packages: {error}", fix)
        return None
    registry = Registry(settings.schema_registry)
    try:
        number = len(registry.subjects())
    except CdcError as error:
        registry.close()
        notes.fails("registry_reachable", error.message, hint=error.hint)
        return None
    notes.passes("registry_reachable", f"registry {registry.url} has {number} subjects")
    return registry


def types(
    notes: Notes, settings: Settings, loaded: Contracts, found: Iterable[str], latest: Sequence[OutboxRow] = ()
) -> None:
    """Check that each event type in the outbox has a contract, or is sent in an envelope, or needs none."""
    known = sorted(set(found))
    if latest and latest[0].payload_is_avro and settings.avro.bytea == "framed":
        if not loaded:
            notes.passes("contracts", f"no contracts in {settings.avro.schemas}: bytea payloads need none")
        notes.passes("event_types", "bytea payloads are sent unchanged, and need no contract")
        return
    _values(notes, settings, loaded, known)
    kinds = {one: settings.record.of(one) for one in known}
    missing = [one for one in known if one not in loaded and kinds[one] != "text"]
    if missing and (settings.avro.unknown_types != "envelope" or any(kinds[one] == "json" for one in missing)):
        text = "; ".join(loaded.missing(one) for one in missing[:_SHOWN])
        hint = "write the contract, or map the event type to one in [avro] types"
        note = notes.fails if settings.delivery.on_poison == "stop" else notes.warns
        note("event_types", text, hint=hint)
    elif missing:
        notes.passes("event_types", f"without a contract, sent in cdc.Envelope: {', '.join(missing)}")
    else:
        texts = [one for one in known if one not in loaded]
        text = f"each type has a contract: {', '.join(known)}" if known else "the outbox is empty, or cannot be read"
        if texts:
            text = f"each type has a contract, or is sent as text: {', '.join(known)}"
        notes.passes("event_types", text)


def _values(notes: Notes, settings: Settings, loaded: Contracts, known: list[str]) -> None:
    if not settings.record.values:
        return
    unused = [one for one in settings.record.values if one not in loaded and one not in known]
    if unused:
        text = f"no contract and no row has an event type of [record.values]: {', '.join(unused)}"
        notes.warns("record_values", text, hint="correct the names, or remove them")
    else:
        notes.passes("record_values", "each event type in [record.values] has a contract or rows")


def rows(notes: Notes, settings: Settings, loaded: Contracts, latest: list[OutboxRow]) -> None:
    """Check that the latest rows match their contracts; rows without one are reported by `event_types`."""
    tried = [
        row
        for row in latest
        if row.type is None
        or row.type in loaded
        or row.payload is None
        or row.payload_is_avro
        or settings.record.of(row.type) == "text"
    ]
    problems = [(row, misfit(settings, loaded.get, loaded.missing, row)) for row in tried]
    misfits = [f"row {row.id} of type {row.type}: {problem}" for row, problem in problems if problem]
    if misfits:
        more = f" (and {len(misfits) - _SHOWN} more)" if len(misfits) > _SHOWN else ""
        text = f"{len(misfits)} of the latest {len(tried)} rows would be poison: {'; '.join(misfits[:_SHOWN])}{more}"
        hint = "fix the contract or the rows; to check all rows, run: cdc-publisher schema check --table"
        note = notes.fails if settings.delivery.on_poison == "stop" else notes.warns
        note("outbox_rows", text, hint=hint)
        return
    for row in tried:
        if row.payload and row.payload.strip():
            examine(settings, loaded.get, row)
    if doubted := doubts(loaded):
        notes.warns("outbox_rows", "; ".join(f"{name}: {doubt}" for name, doubt in doubted[:_SHOWN]), hint=ADVICE)
    else:
        notes.passes(
            "outbox_rows", f"the latest {len(tried)} rows match their contracts" if tried else "there are no rows"
        )


def misfit(
    settings: Settings, get: Callable[[str], Contract | None], missing: Callable[[str], str], row: OutboxRow
) -> str:
    """Return why a row would be a poison event; empty if it would not."""
    value = settings.record.of(row.type or "")
    if row.payload is None or (settings.outbox.tombstones and not row.payload.strip()):
        return "" if settings.outbox.tombstones or value == "text" else "the payload is null"
    if row.type is None:
        return "the type is null"
    if row.payload_is_avro or (value == "text" and not settings.record.check):
        return ""
    encode = encoder(settings, get(row.type), row.type)
    if encode is None:
        without = value == "text" or (value == "avro" and settings.avro.unknown_types == "envelope")
        return "" if without else missing(row.type)
    try:
        encode.encode(row.payload, b"")
    except ValueError as error:
        return str(error)
    return ""


def examine(settings: Settings, get: Callable[[str], Contract | None], row: OutboxRow) -> None:
    """Collect what the bytes of a row that matches its contract look like, for `doubts`."""
    contract = get(row.type or "") if settings.record.of(row.type or "") == "avro" else None
    if contract and contract.byte_texts and row.payload and not row.payload_is_avro:
        contract.byte_texts.add(contract.encode(row.payload, b""))


def doubts(loaded: Contracts) -> list[tuple[str, str]]:
    """Return name and doubt for each contract of which all bytes in the examined rows look encoded."""
    found = {contract.name: contract.byte_texts.doubtful for contract in loaded.values() if contract.byte_texts}
    text = "every value of {} looks like base64 or hex, and its characters are sent as bytes"
    return [(name, text.format(", ".join(fields))) for name, fields in found.items() if fields]


def size(settings: Settings, loaded: Contracts | None, row: OutboxRow) -> int:
    """The size of the record's value in bytes; of the payload if no contract encodes it."""
    payload, event_type = row.payload or b"", row.type or ""
    contract = loaded.get(event_type) if loaded and settings.record.of(event_type) != "text" else None
    encode = encoder(settings, contract, event_type)
    if encode is None or row.payload_is_avro:
        return len(payload)
    try:
        return len(encode.encode(payload, HEADER if encode is contract else b""))
    except ValueError:
        return len(payload)


def subjects(notes: Notes, settings: Settings, seen: ContractFacts, pairs: Iterable[tuple[str, str]]) -> None:
    """Check that the contracts of these (topic, event type) pairs are registered, or would be accepted."""
    if seen.registry is None or seen.contracts is None or settings.avro.framing != "confluent":
        return
    registry, loaded = seen.registry, seen.contracts
    wanted = {
        subject(settings.avro.subject, topic, contract.name): contract
        for topic, event_type in pairs
        if (contract := loaded.get(event_type)) and settings.record.of(event_type) == "avro"
    }
    try:
        missing = [name for name, contract in wanted.items() if not _registered(registry, loaded, name, contract)]
        rejected = [
            f"{name}: {problem}"
            for name in missing
            for problem in registry.problems(name, loaded.definitions[wanted[name].name].whole)
        ]
    except CdcError as error:
        notes.fails("registry_subjects", error.message, hint=error.hint)
        return
    if rejected:
        hint = "make the contract compatible with the registered versions, or change the subject's compatibility level"
        notes.fails("registry_subjects", f"the registry would reject {'; '.join(rejected[:_SHOWN])}", hint=hint)
    elif missing and not settings.schema_registry.auto_register:
        hint = "or let start register them: [schema_registry] auto_register = true"
        notes.fails("registry_subjects", f"not registered: {', '.join(missing)}", REGISTER, hint=hint)
    elif missing:
        notes.passes("registry_subjects", f"not registered, but start registers them: {', '.join(missing)}")
    else:
        notes.passes("registry_subjects", f"registered: {', '.join(wanted) or 'none are needed, there are no rows'}")


def _registered(registry: "Registry", loaded: Contracts, name: str, contract: Contract) -> bool:
    from cdc.registry.references import references

    needed = references(registry, loaded.definitions, contract.name)
    return needed is not None and registry.lookup(name, contract.text, needed) is not None
