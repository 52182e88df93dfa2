"""What a start imports, and when: it waits for servers while it imports, and has no use for much of the rest."""

import subprocess
import sys


def loaded(modules: str) -> set[str]:
    """The modules that are loaded after an import of some."""
    program = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_kafka_is_asked_before_the_driver_of_postgresql_and_the_encoders_are_imported() -> None:
    assert "cdc.app.reaching" in loaded("cdc.cli.start")
    assert not loaded("cdc.cli.start") & {"psycopg", "msgspec", "cdc.delivery.service"}


def test_what_only_some_starts_need_is_not_imported() -> None:
    rarely = {"sqlite3", "http.client", "rich", "cdc.app.polling", "cdc.kafka.foreign"}
    assert not loaded("cdc.cli.start, cdc.cli.publishing") & {*rarely, "cdc.kafka.transactional_producer"}
