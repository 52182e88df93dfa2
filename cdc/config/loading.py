"""Load settings from options, environment and file, in this order of precedence, and report all problems together."""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cdc.config import files, unit_secrets
from cdc.config.librdkafka import refused
from cdc.config.settings import Settings
from cdc.errors import ConfigError

DEFAULT_FILE = Path("cdc-publisher.toml")
PREFIX = unit_secrets.PREFIX
NOT_SETTINGS = ("CDC_TEST_", "CDC_CONNECT_")  # servers for tests, and credentials of Kafka Connect for `takeover`

Path_ = tuple[str, ...]

# A setting has two underscores in a row, and the name of a Service makes none.
_ONE: Final = r"CDC_(?:(?!\w*__)\w+_)?"
_OF_SERVICE: Final = re.compile(
    _ONE + r"(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)"
)
_PORT_OF_SERVICE: Final = re.compile(_ONE + r"PORT")  # a mistyped setting may end so: only the value shows which it is
_ADDRESS: Final = re.compile(r"(?:tcp|udp|sctp)://")

# In a settings file, these paths are relative to that file.
PATHS = {
    ("avro", "schemas"),
    ("fleet", "secrets"),
    *(("schema_registry", name) for name in ("ssl_ca", "ssl_certificate", "ssl_key")),
}

# Sections of a fleet's file and of its units' files that are not for the other.
OF_FLEET: Final = ("fleet", "http")
OF_UNITS: Final = ("postgres", "outbox")

# A unit that names servers of its own gets nothing of the fleet's section, credentials above all.
_ADDRESSES: Final = {"kafka": ("bootstrap.servers", "metadata.broker.list"), "schema_registry": ("url",)}

# librdkafka properties whose names end in .file: CDC_KAFKA__..._FILE is the property itself, not a file with its value.
PROPERTIES_OF_FILES = {
    f"sasl.oauthbearer.assertion.{name}" for name in ("file", "private.key.file", "jwt.template.file")
}


class Given:
    """Values by path, each with its origin; later sources override earlier ones."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[Path_, str] = {}
        self.problems: list[str] = []

    def below(self, defaults: "Given") -> "Given":
        """Return these values above those of `defaults`, which sections that name servers of their own do not take."""
        merged = Given()
        merged.problems = [*self.problems]
        for one in (defaults, self):
            for section, table in one.values.items():
                names = _ADDRESSES.get(section, ()) if one is defaults else ()
                own = self.values.get(section)
                if isinstance(own, dict) and any(own.get(name) for name in names):
                    continue
                merged.values[section] = (
                    {**merged.values.get(section, {}), **table} if isinstance(table, dict) else table
                )
                merged.origins |= {path: origin for path, origin in one.origins.items() if path[0] == section}
        return merged

    def put(self, path: Path_, value: object, origin: str) -> None:
        table = self.values
        for name in path[:-1]:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                self.problems.append(f"{origin}: {'.'.join(path)}: {name} is not a table")
                return
        table[path[-1]] = value
        self.origins[path] = origin

    def origin(self, path: Path_) -> str:
        """Return the origin of the setting at `path`, or of the nearest setting above or below it."""
        related = (origin for known, origin in self.origins.items() if known[: len(path)] == path[: len(known)])
        return self.origins.get(path) or next(related, "")


def load(file: Path | None = None, options: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the effective settings.

    Without `file`, `./cdc-publisher.toml` is read if it exists. `options` are strings such as `postgres.slot=orders`.
    Raises ConfigError with one line per problem.
    """
    return _settings(_gathered(file, options, environ))


def load_fleet(
    file: Path | None = None, options: Iterable[str] = (), environ: Mapping[str, str] = os.environ
) -> tuple[Settings, Given]:
    """Return the settings of a fleet, and what they hold of defaults for its units. Raises ConfigError."""
    given = _gathered(file, options, environ)
    _refuse(given, OF_UNITS, "the files of the units", file or DEFAULT_FILE)
    settings = _settings(given)
    defaults = Given()
    defaults.values = {section: table for section, table in given.values.items() if section not in OF_FLEET}
    defaults.origins = {path: origin for path, origin in given.origins.items() if path[0] not in OF_FLEET}
    return settings, defaults


def load_unit(file: Path, defaults: Given, secrets: Path | None) -> Settings:
    """Return the settings of a unit: its secrets in the folder of all, above its file, above the defaults.

    Raises ConfigError with one line per problem.
    """
    given = Given()
    _from_file(given, file)
    _from_environment(given, unit_secrets.read(secrets, file.stem))
    _refuse(given, OF_FLEET, "the file of the fleet", file)
    return _settings(given.below(defaults))


def _gathered(file: Path | None, options: Iterable[str], environ: Mapping[str, str]) -> Given:
    given = Given()
    if file is not None or DEFAULT_FILE.exists():
        _from_file(given, file or DEFAULT_FILE)
    _from_environment(given, environ)
    _from_options(given, options)
    return given


def _refuse(given: Given, sections: Iterable[str], home: str, file: Path) -> None:
    for section in sections:
        if section in given.values:
            given.problems.append(f"{given.origin((section,)) or file}: [{section}] belongs in {home}")
            del given.values[section]


def _settings(given: Given) -> Settings:
    registry, avro = given.values.get("schema_registry"), given.values.setdefault("avro", {})
    if isinstance(avro, dict) and isinstance(registry, dict) and registry.get("url"):
        avro.setdefault("framing", "confluent")
    try:
        settings = Settings.model_validate(given.values)
    except ValidationError as error:
        given.problems.extend(_described(given, problem) for problem in error.errors())
    kafka, delivery = given.values.get("kafka"), given.values.get("delivery")
    allowed = (delivery.get("kafka_code") if isinstance(delivery, dict) else None) or ()
    for name, problem in (refused(kafka, allowed) if isinstance(kafka, dict) else {}).items():
        given.problems.append(f"{given.origin(('kafka', name))}: [kafka] {problem}")
    if given.problems:
        raise ConfigError(*dict.fromkeys(given.problems))
    return settings


def _from_file(given: Given, file: Path) -> None:
    try:
        tables = tomllib.loads(files.decoded(file.read_bytes()))
    except OSError as error:
        raise ConfigError(
            f"settings file {file}: {error.strerror}", hint="name the settings file with --config"
        ) from None
    except ValueError as error:
        raise ConfigError(f"settings file {file}: {error}") from None
    for section, table in tables.items():
        if not isinstance(table, dict):
            given.put((section,), table, str(file))
            continue
        given.values.setdefault(section, {})
        for name, value in _flat(table) if section == "kafka" else table.items():
            if (section, name) in PATHS and isinstance(value, str):
                value = str(file.parent / value)
            given.put((section, name), value, str(file))


def _flat(table: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    """Yield property names with dots: TOML reads an unquoted `a.b` as a table `a`, which means the same here."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _from_environment(given: Given, environ: Mapping[str, str]) -> None:
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable.startswith(NOT_SETTINGS) or not text.rstrip(files.NEWLINES):
            continue
        if _is_service_link(variable, text):
            continue
        section, *names = variable.removeprefix(PREFIX).lower().split("__")
        if not names or not all(names):
            given.problems.append(f"{variable} is not a setting: expected CDC_SECTION__NAME, as in CDC_POSTGRES__DSN")
        elif section == "kafka" and len(names) > 1:
            given.problems.append(
                f"{variable} is not a setting: expected CDC_KAFKA__ and a property, dots as underscores"
            )
        else:
            _from_variable(given, environ, variable, _path(section, names))


def _is_service_link(variable: str, text: str) -> bool:
    """Return whether Kubernetes made a variable for a Service whose name begins with `cdc`, in every pod beside it.

    See "Accessing the Service" in <https://kubernetes.io/docs/tutorials/services/connect-applications-service/>, and
    Docker's links, which have the same form.
    """
    return bool(_OF_SERVICE.fullmatch(variable) or (_PORT_OF_SERVICE.fullmatch(variable) and _ADDRESS.match(text)))


def _path(section: str, names: list[str]) -> Path_:
    return (section, names[0].replace("_", ".")) if section == "kafka" else (section, *names)


def _from_variable(given: Given, environ: Mapping[str, str], variable: str, path: Path_) -> None:
    text = environ[variable].rstrip(files.NEWLINES)
    if _names_a_file(path):
        path = (*path[:-1], path[-1][: -len(files.SUFFIX)])
        plain = variable.removesuffix(files.SUFFIX)
        if environ.get(plain, "").rstrip(files.NEWLINES):
            given.problems.append(f"{variable} and {plain} are both set: set only one of them")
            return
        if path in PATHS:
            given.problems.append(f"{variable} is not a setting: {plain} already takes a file name")
            return
        try:
            text = files.read(text)
        except ValueError as error:
            given.problems.append(f"{variable}: {error}")
            return
    given.put(path, text if path[0] == "kafka" else _structured(path, text), variable)


def _names_a_file(path: Path_) -> bool:
    """Return whether a variable names a file with the value of a setting, rather than a setting itself."""
    section, name = path[0], path[-1]
    if section == "kafka":
        return name.endswith(".file") and name not in PROPERTIES_OF_FILES
    return name.endswith("_file") and _field(path) is None


def _from_options(given: Given, options: Iterable[str]) -> None:
    for option in options:
        name, equals, text = option.partition("=")
        section, dot, rest = name.strip().partition(".")
        if not equals or not dot:
            # Text that does not look like a setting's name may be a secret.
            shown = f"--set {name}" if re.fullmatch(r"[a-z_]+(\.[a-z_.]+)?", name) else "--set"
            given.problems.append(f"{shown}: expected SECTION.NAME=VALUE, as in postgres.slot=orders")
            continue
        path = (section, rest) if section == "kafka" else (section, *rest.split("."))
        given.put(path, _structured(path, text), f"--set {name}")


def _structured(path: Path_, text: str) -> object:
    """Parse text of a list or table as JSON, or of a list separated by commas; return other text unchanged."""
    annotation = _field(path) or str
    kind = getattr(annotation, "__origin__", annotation)
    if kind in (list, dict) or _is_section(annotation):
        try:
            return json.loads(text)
        except ValueError:
            return [part.strip() for part in text.split(",")] if kind is list else text
    return text


def _field(path: Path_) -> object:
    """Return the type of a setting, or None if there is no such setting."""
    annotation: object = Settings
    for name in path:
        fields = annotation.model_fields if _is_section(annotation) else {}
        annotation = fields[name].annotation if name in fields else None
    return annotation


def _is_section(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _described(given: Given, problem: ErrorDetails) -> str:
    path = tuple(str(part) for part in problem["loc"])
    origin = given.origin(path)
    where = f"{origin}: " if origin else ""
    name = f"[{path[0]}] {'.'.join(path[1:])}".rstrip() if path else ""
    if problem["type"] == "extra_forbidden":
        return f"{where}{name}: unknown setting{_nearest(path)}"
    reason = problem["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:] if reason.startswith(("Input", "String")) else reason
    return f"{where}{name}: {reason}" if name else reason


def _nearest(path: Path_) -> str:
    section: type[BaseModel] = Settings
    for name in path[:-1]:
        field = section.model_fields.get(name)
        if field is None or not _is_section(field.annotation):
            return ""
        section = field.annotation
    known = list(section.model_fields)
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
