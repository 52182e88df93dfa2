"""The commands kafka-acls.sh and kafka-configs.sh of the docs, executed through the admin protocol.

The scripts themselves are not among what the local stack downloads; the options they are given here are read as
<https://kafka.apache.org/documentation/#security_authz_cli> has them, and any other is an error.
"""

import argparse
import re
import shlex
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

_OPERATIONS = {"DescribeConfigs": "DESCRIBE_CONFIGS", "IdempotentWrite": "IDEMPOTENT_WRITE"}


def execute(admin: AdminClient, script: str, variables: dict[str, str]) -> None:
    """Run a block of such commands; `variables` are put in as a shell would."""
    for name, value in variables.items():
        script = script.replace(name, value)
    for line in script.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True) or [""]
        if program == "kafka-acls.sh":
            _await(admin.create_acls(bindings(arguments)))
        elif program == "kafka-configs.sh":
            _await(admin.alter_user_scram_credentials([_credential(arguments)]))
        else:
            assert not program, line


def bindings(arguments: list[str]) -> list[AclBinding]:
    """What kafka-acls.sh would add: one for each operation."""
    parser = _parser()
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", required=True)
    parser.add_argument("--resource-pattern-type", default="literal")
    resource = parser.add_mutually_exclusive_group(required=True)
    for kind in ("topic", "transactional-id", "group"):
        resource.add_argument(f"--{kind}")
    given = parser.parse_args(arguments)
    kind, name = next((kind, name) for kind in ("topic", "transactional_id", "group") if (name := getattr(given, kind)))
    pattern = ResourcePatternType[given.resource_pattern_type.upper()]
    return [
        AclBinding(
            *(ResourceType[kind.upper()], name, pattern, given.allow_principal, "*"),
            *(AclOperation[_OPERATIONS.get(operation, operation.upper())], AclPermissionType.ALLOW),
        )
        for operation in given.operation
    ]


def _credential(arguments: list[str]) -> UserScramCredentialUpsertion:
    parser = _parser()
    parser.add_argument("--alter", action="store_true", required=True)
    parser.add_argument("--entity-type", choices=["users"], required=True)
    parser.add_argument("--entity-name", required=True)
    parser.add_argument("--add-config", required=True)
    given = parser.parse_args(arguments)
    found = re.fullmatch(r"(SCRAM-SHA-(?:256|512))=\[password=(.+)\]", given.add_config)
    assert found
    mechanism = ScramMechanism[found[1].replace("-", "_")]
    return UserScramCredentialUpsertion(given.entity_name, ScramCredentialInfo(mechanism, 4096), found[2].encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--bootstrap-server", required=True)
    return parser


def _await(answers: dict[Any, Any]) -> None:
    for answer in answers.values():
        answer.result()
