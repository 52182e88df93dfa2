"""The same rows become the same records with and without the native accelerator."""

import importlib.util
from pathlib import Path

import pytest

from tests.pipeline import Pipeline
from tests.reader import Received

pytestmark = pytest.mark.timeout(180)

ROWS = """
insert into outbox (aggregatetype, aggregateid, type, payload, traceparent)
select 'note', 'k' || n % 7, 'Noted',
  case when n % 3 = 0 then jsonb_build_object('seq', n) else jsonb_build_object('text', 'é' || n, 'seq', n << 20) end,
  case when n % 2 = 0 then '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01' end
from generate_series(1, 400) n
"""
MISFIT = """
insert into outbox (aggregatetype, aggregateid, type, payload)
values ('note', 'k1', 'Noted', '{"seq": "one"}'), ('note', 'k1', 'Noted', '{"seq": 7}'), ('note', 'k1', 'Lost', '{}')
"""


def published(pipeline: Pipeline, accelerator: str) -> list[Received]:
    """Publish the rows with an accelerator, and return the records."""
    pipeline.settings["delivery"] = {"on_poison": "dead-letter", "accelerator": accelerator}
    pipeline.sql("alter table outbox add column if not exists traceparent text")
    running = pipeline.start().streams()
    name = str(next(line["accelerator"] for line in running.log if line["message"] == "starting"))
    assert name.split()[0] == accelerator
    for statement in (ROWS, MISFIT, ROWS):
        pipeline.sql(statement)
    pipeline.settles()
    assert running.stop() == 0
    return pipeline.records()


@pytest.mark.parametrize("accelerator", ["python", "native"])
def test_records_do_not_depend_on_the_accelerator(pipeline: Pipeline, accelerator: str) -> None:
    if accelerator == "native" and not importlib.util.find_spec("cdc_native"):
        pytest.skip("the native accelerator is not installed: there is no Rust toolchain")
    records = published(pipeline, accelerator)
    rows = pipeline.sql("select id::text, aggregateid, type, payload, traceparent from outbox")
    by_id = {record.id: record for record in records}
    assert (len(rows), len(records), len(by_id)) == (803, 801, 801)
    for event_id, key, event_type, payload, traceparent in rows:
        record = by_id.get(event_id)
        if record is None:
            assert event_type == "Lost" or payload["seq"] == "one"
            continue
        assert (record.key, record.header("eventType")) == (key, event_type)
        assert dict(record.headers).get("traceparent") == traceparent
        assert record.value == {"text": None, **payload}


def broken(folder: Path, source: str) -> dict[str, str]:
    """Return an environment in which `import cdc_native` runs the given source."""
    (folder / "cdc_native.py").write_text(source)
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("choice", ["auto", "native"])
@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("__version__ = '9.0.0'\n", "is of version 9.0.0, not"),
        ("raise ImportError('wrong machine')\n", "wrong machine"),
    ],
)
def test_unusable_accelerator_is_a_configuration_error_with_advice(
    pipeline: Pipeline, tmp_path: Path, choice: str, source: str, problem: str
) -> None:
    pipeline.settings["delivery"] = {"accelerator": choice}
    done = pipeline.run_process("start", **broken(tmp_path, source))
    assert done.returncode == 78
    assert problem in done.stderr
    assert 'set accelerator = "python"' in done.stderr


def test_start_logs_the_command_that_installs_a_missing_accelerator(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = broken(tmp_path, "raise ModuleNotFoundError('cdc_native')\n")
    monkeypatch.setenv("PYTHONPATH", missing["PYTHONPATH"])
    running = pipeline.process("start", imports=True).streams()
    (line,) = [line for line in running.log if str(line["message"]).startswith("the native accelerator")]
    assert "pip install ./native" in str(line["install"])
    assert running.stop() == 0
