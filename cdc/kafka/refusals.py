"""Recognises why brokers refuse connections, while librdkafka retries indefinitely.

To a request, wrong credentials and certificates look like an unreachable cluster: librdkafka only logs them, and
passes them to `error_cb`.
"""

import re
from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaError

from cdc.config import librdkafka
from cdc.errors import KafkaRefused
from cdc.kafka import certificates

_CREDENTIALS: Final = 'check "sasl.mechanisms", "sasl.username" and "sasl.password" in [kafka], and the user in Kafka'
_TOKEN: Final = 'check the properties "sasl.oauthbearer…" in [kafka], and what the token endpoint gives'
_OURS: Final = (
    'show the broker a certificate that it trusts: "ssl.certificate.location" and "ssl.key.location" in [kafka]'
)
_PROTOCOL: Final = 'check "security.protocol" in [kafka] against the listener'

# Texts of permanent errors, and what fixes them. The `invalid_…` are of OAuth's token endpoints: RFC 6749, 5.2.
_PERMANENT: Final = {
    "invalid_client": _TOKEN,
    "invalid_grant": _TOKEN,
    "invalid_scope": _TOKEN,
    "unauthorized_client": _TOKEN,
    "SASL authentication error": _CREDENTIALS,
    "SASL mechanism": _CREDENTIALS,
    "alert certificate": _OURS,
    "alert bad certificate": _OURS,
    "alert unknown ca": _OURS,
    "wrong version number": _PROTOCOL,
}
_UNVERIFIED: Final = "certificate verify failed"
_REPORT: Final = re.compile(
    r"(?:\w+://)?(?P<address>[^/\s]+:\d+)/\w+: (?P<reason>.+?)(?: \(after \d+ms in state \w+\))?"
)


class Complaints:
    """The errors that were reported last; an instance is an `error_cb`. `given` are the user's properties."""

    def __init__(self, given: Mapping[str, librdkafka.Value]) -> None:
        self._given = given
        self._permanent = self._passing = ""

    def __call__(self, error: KafkaError) -> None:
        text = " ".join(error.str().split())
        if any(part in text for part in (*_PERMANENT, _UNVERIFIED)):
            self._permanent = text
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._passing = text

    @property
    def reason(self) -> str:
        """Why a connection failed last, of temporary reasons; empty when none was reported."""
        return _parts(self._passing)[1]

    @property
    def refused(self) -> bool:
        """Whether a permanent error was reported."""
        return bool(self._permanent)

    def refusal(self) -> KafkaRefused | None:
        """Return the permanent error; None when none was reported. May connect to a broker for its certificate."""
        if not self._permanent:
            return None
        address, reason = _parts(self._permanent)
        where = f" at {address}" if address else ""
        if _UNVERIFIED in reason:
            why, hint = certificates.why(address, self._given)
            return KafkaRefused(f"the certificate of Kafka{where} is not accepted: {why}", hint=hint)
        hint = next(hint for part, hint in _PERMANENT.items() if part in reason)
        if hint == _CREDENTIALS and self._has_tokens:
            hint = _TOKEN
        return KafkaRefused(f"Kafka{where} refuses the connection: {reason}", hint=hint)

    @property
    def _has_tokens(self) -> bool:
        mechanism = self._given.get("sasl.mechanisms", self._given.get("sasl.mechanism"))
        return str(mechanism).upper() == "OAUTHBEARER"


def _parts(text: str) -> tuple[str, str]:
    """Return host:port, where it is reported, and the reason."""
    found = _REPORT.fullmatch(text)
    return (found["address"], found["reason"]) if found else ("", text)
