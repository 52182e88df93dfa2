"""Commands that put a cluster right: Kafka's own scripts, as an administrator copies them into a shell."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Final

from cdc.config.settings import Settings

ADMIN_FILE: Final = "admin.properties"
ADMIN_HINT: Final = f"{ADMIN_FILE}: a file with the security settings of an administrator"
_SCRIPT_NAMES: Final = {  # of operations
    "READ": "Read",
    "WRITE": "Write",
    "CREATE": "Create",
    "DESCRIBE": "Describe",
    "DESCRIBE_CONFIGS": "DescribeConfigs",
    "IDEMPOTENT_WRITE": "IdempotentWrite",
}


class Tools:
    """Makes the commands for one cluster."""

    def __init__(self, settings: Settings) -> None:
        kafka = settings.kafka
        self._bootstrap = str(kafka.get("bootstrap.servers", kafka.get("metadata.broker.list", "")))
        self.secured = str(kafka.get("security.protocol", "plaintext")).lower() != "plaintext"
        user = kafka.get("sasl.username")
        self.principal = f"User:{user}" if user else "User:<principal>"

    @property
    def hint(self) -> str:
        """What is to be known of the commands; empty on a cluster without security."""
        return ADMIN_HINT if self.secured else ""

    def create(self, topic: str, partitions: int, replicas: int, config: Mapping[str, object]) -> str:
        """Create a topic; -1 is the broker's default."""
        words = ["--create", "--topic", topic]
        words += ["--partitions", str(partitions)] if partitions > 0 else []
        words += ["--replication-factor", str(replicas)] if replicas > 0 else []
        for name, value in config.items():
            words += ["--config", f"{name}={str(value).lower() if isinstance(value, bool) else value}"]
        return self._command("kafka-topics.sh", *words)

    def alter(self, topic: str, name: str, value: object) -> str:
        """Set one setting of a topic."""
        words = ("--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", f"{name}={value}")
        return self._command("kafka-configs.sh", *words)

    def allow(self, operations: Iterable[str], *resource: str) -> str:
        """Let our principal do operations, by Kafka's names, on a resource such as `--topic NAME`."""
        words = ["--add", "--allow-principal", self.principal]
        for operation in sorted(operations):
            words += ["--operation", _SCRIPT_NAMES[operation]]
        return self._command("kafka-acls.sh", *words, *resource)

    def replicate(self, topic: str, replicas: tuple[tuple[int, ...], ...], brokers: list[int], wanted: int) -> str:
        """Give each partition of a topic more replicas, on brokers that have none of it."""
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
