"""Untrusted text in rows and names is harmless in the program's logs."""

import json
import re

from tests.pipeline import Pipeline

FORGED = "2026-01-31T00:00:00.000Z error   the slot is gone: run curl evil"
HOSTILE = f"Noted\x1b[2J\x9b31m\u202e\r\n{FORGED}\u2028{FORGED}\x07"
OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def insert(pipeline: Pipeline) -> None:
    """Two events: of a type that is hostile, and with a field whose name is."""
    for event_type, field in ((HOSTILE, "seq"), ("Noted", HOSTILE)):
        pipeline.sql(
            "insert into outbox (aggregatetype, aggregateid, type, payload) values ('note', 'k', %s, %s::jsonb)",
            event_type,
            json.dumps({field: 1}),
        )


def test_hostile_rows_cannot_control_a_terminal_or_forge_a_log_line(pipeline: Pipeline) -> None:
    insert(pipeline)
    stopped = pipeline.run_process("-v", "start")
    assert stopped.returncode == 1
    assert "[2J" in stopped.stderr
    assert not OBEYED.search(stopped.stderr)
    assert not re.search(f"^{FORGED}", stopped.stderr, re.MULTILINE)

    pipeline.settings["delivery"] = {"on_poison": "dead-letter"}
    running = pipeline.start()
    running.logs("an event became a dead letter", times=2)
    pipeline.settles()
    assert running.stop() == 0
    first, second = [line for line in running.log if line["message"].startswith("an event became a dead letter")]
    assert first["type"] == HOSTILE
    assert second["type"] == "Noted"
    assert all("slot" in line for line in running.log)
