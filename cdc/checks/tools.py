"""Commands that fix a cluster: Kafka's own scripts, quoted so that an administrator can copy them into a shell."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Final

from cdc.config.settings import Settings

ADMIN_FILE: Final = "admin.properties"
ADMIN_HINT: Final = f"{ADMIN_FILE} is a file with an administrator's security settings"
_SCRIPT_NAMES: Final = {  # of operations
    "READ": "Read",
    "WRITE": "Write",
    "CREATE": "Create",
    "DESCRIBE": "Describe",
    "DESCRIBE_CONFIGS": "DescribeConfigs",
    "IDEMPOTENT_WRITE": "IdempotentWrite",
}


class Tools:
    """Builds commands for one cluster, with its bootstrap servers and, if it is secured, a file of admin properties."""

    def __init__(self, settings: Settings) -> None:
        kafka = settings.kafka
        self._bootstrap = str(kafka.get("bootstrap.servers", kafka.get("metadata.broker.list", "")))
        self.secured = str(kafka.get("security.protocol", "plaintext")).lower() != "plaintext"
        user = kafka.get("sasl.username")
        self.principal = f"User:{user}" if user else "User:<principal>"

    @property
    def hint(self) -> str:
        """A sentence about the file that the commands read; empty for a cluster without security."""
        return ADMIN_HINT if self.secured else ""

    def create(self, topic: str, partitions: int, replicas: int, config: Mapping[str, object]) -> str:
        """Return the command that creates a topic; -1 partitions or replicas means the broker's default."""
        words = ["--create", "--topic", topic]
        words += ["--partitions", str(partitions)] if partitions > 0 else []
        words += ["--replication-factor", str(replicas)] if replicas > 0 else []
        for name, value in config.items():
            words += ["--config", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
        return self._command("kafka-topics.sh", *words)

    def alter(self, topic: str, name: str, value: object) -> str:
        """Return the command that changes one setting of a topic."""
        words = ("--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", f"{name}={value}")
        return self._command("kafka-configs.sh", *words)

    def allow(self, operations: Iterable[str], *resource: str) -> str:
        """Return the command that allows the principal `operations` (Kafka's names) on, for example, `--topic NAME`."""
        words = ["--add", "--allow-principal", self.principal]
        for operation in sorted(operations):
            words += ["--operation", _SCRIPT_NAMES[operation]]
        return self._command("kafka-acls.sh", *words, *resource)

    def replicate(self, topic: str, replicas: tuple[tuple[int, ...], ...], brokers: list[int], wanted: int) -> str:
        """Return the command that adds replicas to each partition, up to `wanted`, on brokers that have none of it."""
        parts = []
        for number, has in enumerate(replicas):
            free = [broker for broker in brokers if broker not in has]
            start = number % len(free) if free else 0
            more = (free[start:] + free[:start])[: wanted - len(has)]
            listed = ",".join(map(str, [*has, *more]))
            parts.append(f'{{"topic":"{topic}","partition":{number},"replicas":[{listed}]}}')
        plan = f'{{"version":1,"partitions":[{",".join(parts)}]}}'
        command = self._command(
            "kafka-reassign-partitions.sh", "--reassignment-json-file", "reassign.json", "--execute"
        )
        return f"echo {shlex.quote(plan)} > reassign.json && {command}"

    def _command(self, script: str, *words: str) -> str:
        secured = ["--command-config", ADMIN_FILE] if self.secured else []
        return shlex.join([script, "--bootstrap-server", self._bootstrap, *secured, *words])
