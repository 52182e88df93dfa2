"""Mask secrets in settings, and scrub their values from any other text.

Masking goes by the name of a setting; scrubbing finds its value in any text, also escaped, quoted or encoded.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

_SECRET = re.compile(
    r"password|passphrase|passwd|secret(?!s$)|token|credential|\.pem$|jaas|oauthbearer\.config|^scram_\w+_key$",
    re.IGNORECASE,
)
MASK = "********"
URL_SCHEMES: Final = ("postgresql://", "postgres://")
SHORTEST: Final = 4  # characters of a secret to scrub: shorter ones occur in ordinary text

HTTP_URL = re.compile(
    r"(?P<scheme>https?://)(?:(?P<user>[^:@/?#,\s]*)(?P<password>:[^@/?#,\s]*)?@)?"
    r"(?P<location>(?:\[[0-9a-fA-F:.]+\]|[^:@/?#,\s\[\]]+)(?::[0-9]{1,5})?(?:/[^@?#,\s]*)?)"
)


def masked(name: str, value: Any) -> Any:
    """Return the value without secrets; `name` is the last part of the setting's name."""
    if name == "dsn":
        return mask_dsn(str(value))
    if _is_url(name) and value:
        return mask_url(str(value))
    return MASK if _SECRET.search(name) and value not in (None, "") else value


def _is_url(name: str) -> bool:
    return name == "url" or name.endswith(".url")


_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^:@/?#]*)(?P<password>:.*)?@)?"
    r"(?P<location>[^@/?#]*(?:/[^@?#]*)?)(?P<parameters>\?[^@]*)?",
    re.DOTALL,
)
# URLs that libpq splits as a reader would: libpq looks for the @ after the user only before the first /.
_PLAIN_URL = re.compile(
    r"postgres(?:ql)?://(?:[^:@/?]*(?P<password>:[^@/?]*)?@)?[^@/?]*"
    r"(?P<parameters>/[^@?]*(?:\?.*)?|\?[^@]*)?",
    re.DOTALL,
)
_PARAMETER = re.compile(r"([?&])(\w+)=([^&]*)")
_PAIR = re.compile(r"(\s*)(\w+)(\s*=\s*)('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)")
LIBPQ_PAIR = re.compile(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s\\]|\\.)*)", re.DOTALL)


def is_ambiguous(dsn: str) -> bool:
    """Return whether a password in a URL contains an unescaped @, / or ?, part of which libpq would read as a host."""
    return dsn.startswith(URL_SCHEMES) and not _PLAIN_URL.fullmatch(dsn)


def mask_dsn(dsn: str) -> str:
    """Return a connection string with its passwords masked.

    A malformed string is masked in full, because any part of it may be an unquoted password.
    """
    url = _URL.fullmatch(dsn)
    if url and "password=" not in (url["password"] or ""):
        user = "" if url["user"] is None else f"{url['user']}{':' + MASK if url['password'] else ''}@"
        parameters = _PARAMETER.sub(
            lambda pair: f"{pair[1]}{pair[2]}={_shown(pair[2], pair[3])}", url["parameters"] or ""
        )
        return f"{url['scheme']}{user}{url['location']}{parameters}"
    if url or _PAIR.sub("", dsn).strip():
        return MASK
    return _PAIR.sub(lambda pair: f"{pair[1]}{pair[2]}{pair[3]}{_shown(pair[2], pair[4])}", dsn)


def mask_url(urls: str) -> str:
    """Return registry URLs, separated by commas, with their passwords masked; a malformed URL is masked in full."""
    return ",".join(_masked_url(url.strip()) for url in urls.split(","))


def _masked_url(text: str) -> str:
    url = HTTP_URL.fullmatch(text)
    if not url:
        return MASK
    user = "" if url["user"] is None else f"{url['user']}{':' + MASK if url['password'] else ''}@"
    return f"{url['scheme']}{user}{url['location']}"


def _shown(name: str, value: str) -> str:
    return MASK if _SECRET.search(name) else value


def secrets(sections: Mapping[str, Mapping[str, object]]) -> set[str]:
    """Return every secret of the settings' tables, both as written there and decoded."""
    return {secret for table in sections.values() for secret in _of_table(table)}


def _of_table(table: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        if not isinstance(value, str):
            continue
        if name == "dsn":
            yield from _of_dsn(value)
        elif _is_url(name):
            yield from _of_urls(value)
        elif _SECRET.search(name):
            yield value
            # A PEM key: an error may show one of its lines.
            yield from (line for line in value.splitlines() if len(line) > 16 and not line.startswith("-----"))
    if table.get("username") and table.get("password"):
        yield _basic(table["username"], table["password"])


def _of_dsn(dsn: str) -> Iterator[str]:
    url = _PLAIN_URL.fullmatch(dsn) or _URL.fullmatch(dsn)
    if url:
        written = [(url["password"] or "")[1:]]
        written += [pair[3] for pair in _PARAMETER.finditer(url["parameters"] or "") if _SECRET.search(pair[2])]
        yield from written
        yield from map(unquote, written)
        return
    for name, value in LIBPQ_PAIR.findall(dsn):
        if _SECRET.search(name):
            yield value
            yield unquoted(value)


def unquoted(value: str) -> str:
    """Return a value matched by LIBPQ_PAIR without quotes and escapes, as libpq reads it."""
    return re.sub(r"\\(.)", r"\1", value.removeprefix("'").removesuffix("'"), flags=re.DOTALL)


def _of_urls(urls: str) -> Iterator[str]:
    for text in urls.split(","):
        url = HTTP_URL.fullmatch(text.strip())
        if url and url["password"]:
            password = url["password"][1:]
            yield from (password, unquote(password), _basic(unquote(url["user"]), unquote(password)))


def _basic(user: str, password: str) -> str:
    """Return the credentials as HTTP basic authentication encodes them."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def scrubber(known: Iterable[str]) -> Callable[[str], str]:
    """Return a function that masks these secrets in any text, also escaped, quoted or percent-encoded."""
    forms = {form for secret in known for form in _forms(secret) if len(form) >= SHORTEST}
    if not forms:
        return lambda text: text
    # Longest first: one secret may be a prefix of another.
    alternatives = "|".join(map(_pattern, sorted(forms, key=lambda form: (-len(form), form))))
    pattern = re.compile(alternatives)
    return lambda text: pattern.sub(MASK, text)


def _forms(secret: str) -> set[str]:
    if len(secret) < SHORTEST:
        return set()
    # CdcError folds white space, so that its message is one line.
    plain = {secret, " ".join(secret.split())}
    encoded = {encode(text) for text in plain for encode in (_encoded, quote, quote_plus)}
    once = {escape(text) for text in plain for escape in _ESCAPES}
    twice = {escape(text) for text in once for escape in _ESCAPES}
    return plain | encoded | once | twice


def _encoded(text: str) -> str:
    return quote(text, safe="")


def _pattern(form: str) -> str:
    """Return a pattern that matches percent-encodings in either case."""
    return re.sub(r"%[0-9A-F]{2}", lambda found: f"(?i:{found[0]})", re.escape(form))


# JSON, Python's repr of str and bytes, libpq keyword strings and SQL literals, without the quotes.
_ESCAPES: Final[tuple[Callable[[str], str], ...]] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: repr(text)[1:-1],
    lambda text: repr(text.encode(errors="surrogateescape"))[2:-1],
    lambda text: text.replace("\\", "\\\\").replace("'", "\\'"),
    lambda text: text.replace("'", "''"),
)
