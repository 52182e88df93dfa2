"""Why no connection comes about: what librdkafka tells on the side while it tries again for ever.

Wrong credentials and certificates look like an unreachable cluster to whoever asks it something: librdkafka only logs
them, and hands them to `error_cb`.
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

# Texts that no waiting changes, and what does. The `invalid_…` are of OAuth's token endpoints: RFC 6749, 5.2.
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
_TOLD: Final = re.compile(r"(?:\w+://)?(?P<address>[^/\s]+:\d+)/\w+: (?P<reason>.+?)(?: \(after \d+ms in state \w+\))?")


class Complaints:
    """What was told last; an instance is an `error_cb`. The properties are the user's."""

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
        """Why a connection failed last, for what may pass; empty when nothing was told."""
        return _parts(self._passing)[1]

    @property
    def refused(self) -> bool:
        """Whether there is a refusal."""
        return bool(self._permanent)

    def refusal(self) -> KafkaRefused | None:
        """What no waiting changes; None when nothing of the kind was told. May look at a certificate."""
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
    """host:port, where it is told, and what happened there."""
    told = _TOLD.fullmatch(text)
    return (told["address"], told["reason"]) if told else ("", text)
