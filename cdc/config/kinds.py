"""Validated string types for settings: identifiers, topic names, connection strings, addresses."""

import re
from typing import Annotated

from pydantic import AfterValidator

from cdc.config import hostport
from cdc.config.masking import HTTP_URL, is_ambiguous
from cdc.errors import ConfigError
from cdc.outbox.topic_template import TopicTemplate, is_topic_name
from cdc.replication.prefixes import OWN


def _identifier(name: str) -> str:
    if not name or len(name.encode()) > 63:
        raise ValueError("a PostgreSQL name has 1 to 63 bytes")
    return name


_PART = r'(?:"(?:[^"]|"")+"|[^".][^.]*)'
_QUALIFIED = re.compile(rf"(?:(?P<schema>{_PART})\.)?(?P<table>{_PART})")


def qualified(name: str, schema: str = "public") -> tuple[str, str]:
    """Split `schema.table` as PostgreSQL writes it, without folding case; a name alone is in `schema`.

    Names with dots are in double quotes. Raises ValueError for anything else.
    """
    found = _QUALIFIED.fullmatch(name)
    if not found:
        raise ValueError(f"{name!r} is not schema.table; put a name that contains a dot in double quotes")
    return _identifier(_unquoted(found["schema"] or schema)), _identifier(_unquoted(found["table"]))


def _unquoted(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else part


def _slot_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,63}", name):
        raise ValueError("a slot name has 1 to 63 lower-case letters, digits and underscores")
    return name


def _topic_name(name: str) -> str:
    if not is_topic_name(name):
        raise ValueError("a topic name has 1 to 249 letters, digits, '.', '_' and '-'")
    return name


def _fleet_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", name):
        raise ValueError("the name of a fleet has 1 to 200 letters, digits, '.', '_' and '-'")
    return name


def _prefix(prefix: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:/-]{1,63}", prefix):
        raise ValueError("a prefix of messages has 1 to 63 letters, digits and the characters _ . : / -")
    if prefix == OWN:
        raise ValueError(f"{OWN!r} is the prefix of the publisher's own messages, which are no events")
    return prefix


def _template(template: str) -> str:
    try:
        TopicTemplate(template)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return template


def _dsn(dsn: str) -> str:
    if is_ambiguous(dsn):
        # libpq would read part of the password as a host name and show it in its error message.
        raise ValueError("write @, / and ? in a user, password or database as %40, %2F and %3F")
    return dsn


def _registry_url(url: str) -> str:
    if not all(HTTP_URL.fullmatch(one.strip()) for one in url.split(",")):
        # The message does not repeat the value, which may contain a password.
        raise ValueError("a registry URL is http://host:port or https://host:port")
    return url


def _address(address: str) -> str:
    hostport.parse(address)
    return address


Identifier = Annotated[str, AfterValidator(_identifier)]
Prefix = Annotated[str, AfterValidator(_prefix)]
SlotName = Annotated[str, AfterValidator(_slot_name)]
Topic = Annotated[str, AfterValidator(_topic_name)]
FleetName = Annotated[str, AfterValidator(_fleet_name)]
Template = Annotated[str, AfterValidator(_template)]
Dsn = Annotated[str, AfterValidator(_dsn)]
RegistryUrl = Annotated[str, AfterValidator(_registry_url)]
Address = Annotated[str, AfterValidator(_address)]
