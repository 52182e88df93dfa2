"""Settings as they may be shown: without passwords, also where they stand in a connection string or an address."""

import re
from typing import Any

_SECRET = re.compile(r"password|passphrase|passwd|secret|token|credential|\.pem$|jaas", re.IGNORECASE)
MASK = "********"

HTTP_URL = re.compile(
    r"(?P<scheme>https?://)(?:(?P<user>[^:@/?#,\s]*)(?P<password>:[^@/?#,\s]*)?@)?"
    r"(?P<location>(?:\[[0-9a-fA-F:.]+\]|[^:@/?#,\s\[\]]+)(?::[0-9]{1,5})?(?:/[^@?#,\s]*)?)"
)


def masked(name: str, value: Any) -> Any:
    """The value as it may be shown; `name` is the last part of the setting's name."""
    if name == "dsn":
        return mask_dsn(str(value))
    if name == "url" and value:
        return mask_url(str(value))
    return MASK if _SECRET.search(name) and value not in (None, "") else value


_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^:@/?#]*)(?P<password>:.*)?@)?"
    r"(?P<location>[^@/?#]*(?:/[^@?#]*)?)(?P<parameters>\?[^@]*)?"
)
_PARAMETER = re.compile(r"([?&])(\w+)=([^&]*)")
_PAIR = re.compile(r"(\s*)(\w+)(\s*=\s*)('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)")


def mask_dsn(dsn: str) -> str:
    """A connection string without its passwords.

    What is not written by the book is masked as a whole: a password that was not quoted may stand in any part.
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
    """Addresses of a registry without their passwords; one that is not written by the book is masked as a whole."""
    return ",".join(_masked_url(url.strip()) for url in urls.split(","))


def _masked_url(text: str) -> str:
    url = HTTP_URL.fullmatch(text)
    if not url:
        return MASK
    user = "" if url["user"] is None else f"{url['user']}{':' + MASK if url['password'] else ''}@"
    return f"{url['scheme']}{user}{url['location']}"


def _shown(name: str, value: str) -> str:
    return MASK if _SECRET.search(name) else value
