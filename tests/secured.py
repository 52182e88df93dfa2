"""A Kafka broker that asks who comes: TLS, every mechanism of SASL, client certificates, and ACLs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from cdc.local.kafka import KafkaBroker
from cdc.local.ports import Ports
from tests.tls import Authority, Issued

MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
_MODULES: Final = "org.apache.kafka.common.security"
_AUTHORIZER: Final = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}


@dataclass(frozen=True)
class Door:
    """One listener: its name, its protocol and its port."""

    name: str
    protocol: str
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


class SecuredKafka:
    """One broker. Its own plain listener is for the tests, whose principal may do everything.

    `sasl` takes users of `passwords` by PLAIN and SCRAM, and anybody's unsecured token; `mutual` whoever shows a
    certificate of `authority`; `expired` shows a certificate that is out of date.
    """

    def __init__(self, folder: Path, passwords: dict[str, str]) -> None:
        self.authority = Authority(folder)
        self.broker = KafkaBroker(folder / "kafka", 1)
        ports = Ports(folder / "kafka" / "ports.json")
        self.sasl = Door("SASL", "SASL_SSL", ports.get("sasl"))
        self.mutual = Door("MUTUAL", "SSL", ports.get("mutual"))
        self.expired = Door("EXPIRED", "SSL", ports.get("expired"))
        self._passwords = passwords
        self.broker.settings = self._settings()

    @property
    def address(self) -> str:
        """Of the plain listener."""
        return self.broker.address

    def start(self) -> None:
        self.broker.start()
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        credentials: list[Any] = [
            UserScramCredentialUpsertion(user, ScramCredentialInfo(mechanism, 4096), password.encode())
            for user, password in self._passwords.items()
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        ]
        for credential in credentials:
            for done in self.admin.alter_user_scram_credentials([credential]).values():
                done.result()

    def close(self) -> None:
        """End it."""
        self.broker.kill()

    def grant(self, principal: str, operation: str, kind: str, name: str, pattern: str = "LITERAL") -> None:
        """Let a principal do one operation with a TOPIC or TRANSACTIONAL_ID of that name, or PREFIXED with it."""
        for done in self.admin.create_acls([_acl(principal, operation, kind, name, pattern)]).values():
            done.result()

    def revoke(self, principal: str, operation: str, kind: str, name: str, pattern: str = "LITERAL") -> None:
        """The opposite; raises AssertionError when there was no such right."""
        acl = _acl(principal, operation, kind, name, pattern)
        found = AclBindingFilter(
            acl.restype,
            acl.name,
            acl.resource_pattern_type,
            acl.principal,
            acl.host,
            acl.operation,
            acl.permission_type,
        )
        for done in self.admin.delete_acls([found]).values():
            assert done.result()

    def _settings(self) -> dict[str, str]:
        doors = (self.sasl, self.mutual, self.expired)
        node = self.broker.node
        own = f"PLAINTEXT://{self.address}"
        listeners = [own, *(f"{door.name}://{door.address}" for door in doors)]
        protocols = ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT", *(f"{door.name}:{door.protocol}" for door in doors)]
        users = " ".join(f'user_{name}="{password}"' for name, password in self._passwords.items())
        mechanisms = {
            "plain": f"{_MODULES}.plain.PlainLoginModule required {users};",
            "scram-sha-256": f"{_MODULES}.scram.ScramLoginModule required;",
            "scram-sha-512": f"{_MODULES}.scram.ScramLoginModule required;",
            "oauthbearer": f"{_MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=x;",
        }
        server = self.authority.issue("server")
        return {
            "listeners": ",".join([*listeners, f"CONTROLLER://127.0.0.1:{node.controller_port}"]),
            "advertised.listeners": ",".join(listeners),
            "listener.security.protocol.map": ",".join(protocols),
            **_AUTHORIZER,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.file),
            **_keystore(self.sasl, server),
            **_keystore(self.mutual, server),
            **_keystore(self.expired, self.authority.issue("server", expired=True)),
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.sasl.sasl.enabled.mechanisms": ",".join(MECHANISMS),
            **{f"listener.name.sasl.{name}.sasl.jaas.config": module for name, module in mechanisms.items()},
        }


def named_listener(broker: KafkaBroker) -> dict[str, str]:
    """Give a broker a second listener, whose user `app` has only the rights that it is granted.

    It listens from the next start on. Returns the client's settings of that user.
    """
    address = f"127.0.0.1:{Ports(broker.home / 'ports.json').get('named')}"
    advertised = f"PLAINTEXT://{broker.address},NAMED://{address}"
    broker.settings |= {
        **_AUTHORIZER,
        "listeners": f"{advertised},CONTROLLER://127.0.0.1:{broker.node.controller_port}",
        "advertised.listeners": advertised,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,NAMED:SASL_PLAINTEXT",
        "listener.name.named.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.named.plain.sasl.jaas.config": f'{_MODULES}.plain.PlainLoginModule required user_app="pw";',
    }
    user = {"bootstrap.servers": address, "security.protocol": "SASL_PLAINTEXT"}
    return {**user, "sasl.mechanism": "PLAIN", "sasl.username": "app", "sasl.password": "pw"}


def _keystore(door: Door, issued: Issued) -> dict[str, str]:
    prefix = f"listener.name.{door.name.lower()}.ssl.keystore"
    return {f"{prefix}.type": "PEM", f"{prefix}.location": str(issued.both)}


def _acl(principal: str, operation: str, kind: str, name: str, pattern: str) -> Any:
    return AclBinding(
        *(ResourceType[kind], name, ResourcePatternType[pattern], f"User:{principal}", "*"),
        *(AclOperation[operation], AclPermissionType.ALLOW),
    )
