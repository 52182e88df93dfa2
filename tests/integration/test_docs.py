"""The documentation, run: shell and SQL of each page in their order, on real servers, as they are printed.

Each page has a database `shop` of its own, with an outbox, a slot and a publisher that runs; README makes its own.
Topics have their usual names here.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from psycopg import conninfo

from cdc.local import packages
from tests import documents, forking, shell_lines
from tests.documents import PAGES, ROOT, Block
from tests.ports import free_port
from tests.servers import Servers, drop_database

# What Debezium would have done by then: its slot has moved on whenever somebody looks.
DEBEZIUM = """
cdc-publisher outbox init
slot=debezium
psql -qc "SELECT pg_create_logical_replication_slot('$slot', 'pgoutput')"
psql() {
  command psql -qc "SELECT pg_replication_slot_advance('$slot', pg_current_wal_flush_lsn())" > /dev/null 2>&1 || true
  if [ "${1-}" = shop ]; then shift; fi
  command psql -v ON_ERROR_STOP=1 "$@"
}
"""
# The letters that the page shows, under the ids that it shows.
DEAD_LETTERS = """
export CDC_DELIVERY__ON_POISON=dead-letter
cdc-publisher outbox init
cdc-publisher slot create
cdc-publisher start
psql -qc "insert into outbox (id, aggregatetype, aggregateid, type, payload) values
  ('9f36c555-1b51-469d-9e44-d764c381c860', 'order', 'o-1', 'OrderArchived', '{}'),
  ('5f6d5e1c-0e89-4cfa-9425-d3e64aad52ef', ' order', 'o-3', 'OrderCancelled', '{}')"
settled
"""
# Of pages that make slot and publisher themselves; all others begin with BEGINNING.
OWN_BEGINNING = {
    "README.md": "",
    "docs/debezium.md": DEBEZIUM,
    "docs/dead-letters.md": DEAD_LETTERS,
    "docs/tutorial.md": "",
}
LANGUAGES = ("sh", "sql", "console")
RUN = [page for page in PAGES if any(b.language in LANGUAGES and b.is_run for b in documents.blocks(page))]
TOPICS = re.compile(r"outbox\.event\..*|cdc\.positions|cdc\.dead-letter")
DATABASE = "shop"
SETTINGS = "cdc-publisher.toml"  # a block that begins with this name is that file

# What a reader does by hand is done by these: `start` goes on in another terminal, and is stopped before the slot is
# touched; what stays with --watch is left when it has said something; psql is told the server by its own variables.
PRELUDE = r"""
set -euo pipefail
expect() {
  local wanted=$1 got=0; shift
  "$@" || got=$?
  [ "$got" = "$wanted" ] || { echo "exit $got instead of $wanted: $*"; return 1; }
}
judged() {
  local got=0
  "$@" > judged.log 2>&1 || got=$?
  cat judged.log
  [ "$got" -le 1 ] && ! grep -q Traceback judged.log || { echo "exit $got: $*"; return 1; }
}
publisher_stop() {
  [ -s publisher.pid ] || return 0
  kill -TERM "$(cat publisher.pid)" 2>/dev/null || true
  while kill -0 "$(cat publisher.pid)" 2>/dev/null; do sleep 0.05; done
  rm -f publisher.pid
}
cdc-publisher() {
  case " $* " in
    *" start "*)
      publisher_stop
      : > publisher.log  # the background process truncates it only later: grep would find an earlier run's line
      command cdc-publisher "$@" > publisher.log 2>&1 & echo $! > publisher.pid
      for _ in $(seq 300); do
        grep -q streaming publisher.log && return 0
        kill -0 "$(cat publisher.pid)" 2>/dev/null || { cat publisher.log; return 1; }
        sleep 0.1
      done
      cat publisher.log; return 1 ;;
    *" --watch "*)
      : > watched.log
      "$(type -P cdc-publisher)" "$@" < /dev/null > watched.log 2>&1 & local watching=$!
      for _ in $(seq 300); do
        [ -s watched.log ] || ! kill -0 "$watching" 2>/dev/null || { sleep 0.1; continue; }
        break
      done
      kill -TERM "$watching"; local got=0; wait "$watching" || got=$?
      cat watched.log; return "$got" ;;
    *" slot create "*|*" slot drop "*|*" slot advance "*) publisher_stop; command cdc-publisher "$@" < /dev/null ;;
    *) command cdc-publisher "$@" < /dev/null ;;
  esac
}
psql() { if [ "${1-}" = shop ]; then shift; fi; command psql -v ON_ERROR_STOP=1 "$@"; }
some_event() {
  command psql -qc "insert into outbox (aggregatetype, aggregateid, type, payload) values ('order', 'o-1',
    'OrderCancelled', '{\"order_id\": \"6f1c1f7e-8f0e-4a0e-9b1d-0d2c4b1c1f00\", \"reason\": \"CUSTOMER\",
      \"cancelled_at\": \"2026-01-31T10:00:00Z\"}')"
}
settled() {
  local end; end=$(command psql -Atc "select pg_current_wal_flush_lsn()")
  for _ in $(seq 300); do
    command psql -Atc "select confirmed_flush_lsn >= '$end' from pg_replication_slots" | grep -qx t && return
    sleep 0.1
  done
  echo "the slot does not come to $end"; return 1
}
"""
BEGINNING = """
export CDC_HTTP__LISTEN=127.0.0.1:8080
cdc-publisher outbox init
cdc-publisher slot create
cdc-publisher start
some_event
"""
ENDING = """
publisher_stop
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pages are run: what a clone has, without what is made of it."""
    made = tmp_path_factory.mktemp("clone")
    for name in ("schemas", "examples", "deploy", "docs", "README.md", "pyproject.toml"):
        if (ROOT / name).exists():
            (made / name).symlink_to(ROOT / name)
    (made / "main").mkdir()
    (made / "main" / "schemas").symlink_to(ROOT / "schemas")  # what another branch has
    (made / "shop.toml").write_text("[topics]\ncreate = true\n")  # what pages name where they name a file
    return made


@pytest.fixture
def shop(servers: Servers) -> Iterator[str]:
    """The DSN of a fresh database `shop`, and none of the topics of ours in Kafka."""
    _forget(servers)
    with psycopg.connect(servers.dsn, autocommit=True) as admin:
        admin.execute(f"create database {DATABASE}")
    yield conninfo.make_conninfo(servers.dsn, dbname=DATABASE)
    _forget(servers)


def _forget(servers: Servers) -> None:
    with contextlib.suppress(psycopg.errors.InvalidCatalogName):
        drop_database(servers.dsn, DATABASE)
    admin = AdminClient({"bootstrap.servers": servers.kafka, "log_level": 0})
    if topics := [topic for topic in admin.list_topics(timeout=30).topics if TOPICS.fullmatch(topic)]:
        for future in admin.delete_topics(topics, operation_timeout=30).values():
            future.result()


@pytest.mark.parametrize("page", RUN, ids=documents.name)
def test_what_a_page_shows_works(page: Path, folder: Path, shop: str, servers: Servers) -> None:
    done = run(_script(page), folder, shop, servers)
    assert done.returncode == 0, done.stdout[-6000:]


LOST = """
publisher_stop
psql -qc "select pg_drop_replication_slot('cdc_publisher')"
some_event
some_event
expect 1 command cdc-publisher start
{recipe}
some_event
settled
cdc-publisher audit
"""


def test_the_recipe_for_a_lost_slot_publishes_what_is_missing(folder: Path, shop: str, servers: Servers) -> None:
    recipe = "cdc-publisher recover"
    assert f"$ {recipe} " in (ROOT / "docs" / "operating.md").read_text()
    done = run(
        BEGINNING + "settled" + LOST.replace("{recipe}", f"{recipe}\ncdc-publisher start"), folder, shop, servers
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"delivered +4 [^=]*no findings\s*$", done.stdout)


def run(script: str, folder: Path, shop: str, servers: Servers) -> "subprocess.CompletedProcess[str]":
    """Run a script behind PRELUDE in the folder; a publisher that is left is ended."""
    given = conninfo.conninfo_to_dict(shop)
    path = (forking.program(), Path(sys.executable).parent, _psql(), os.environ["PATH"])
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CDC_")},
        "PATH": os.pathsep.join(map(str, path)),
        "CDC_POSTGRES__DSN": shop,
        "CDC_KAFKA__BOOTSTRAP_SERVERS": servers.kafka,
        "CDC_TOPICS__CREATE": "true",
        **{f"PG{name.upper()}": str(given[name]) for name in ("host", "port", "user", "password") if name in given},
        "PGDATABASE": DATABASE,
    }
    text = f"{PRELUDE}\n{script}\n{ENDING}".replace("127.0.0.1:8080", f"127.0.0.1:{free_port()}")
    try:
        return subprocess.run(
            ["bash", "-c", text.replace("127.0.0.1:9092", servers.kafka)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        _end(folder / "publisher.pid")
        (folder / SETTINGS).unlink(missing_ok=True)


def _script(page: Path) -> str:
    """All that is run of a page; each block is told before it begins."""
    parts = [OWN_BEGINNING.get(documents.name(page), BEGINNING)]
    for block in documents.blocks(page):
        if block.text.startswith(f"# {SETTINGS}\n"):
            parts.append(f"cat > {SETTINGS} <<'END OF SETTINGS'\n{block.text}END OF SETTINGS")
        if block.is_run and block.language in LANGUAGES:
            parts += [f"echo {shlex.quote(f'=== {block.where}')}", _as_shell(block)]
    return "\n".join(parts)


def _as_shell(block: Block) -> str:
    """Lines that tell of an exit code other than 0 (`# exit 1: …`) must end with it."""
    if block.language == "sql":
        return f"psql <<'END OF SQL'\n{block.text}\nEND OF SQL"
    if block.language == "console":  # shows something being found: that need not be so here
        return re.sub("^(?=cdc-publisher)", "judged ", shell_lines.typed(block.text), flags=re.MULTILINE)
    return re.sub(r"^(.*?)\s+# exit (\d+)\b.*$", r"expect \2 \1", block.text, flags=re.MULTILINE)


def _psql() -> str:
    found = shutil.which("psql")
    return str(Path(found).parent) if found else str(packages.postgres() / "pginstall" / "bin")


def _end(pid: Path) -> None:
    """End a publisher that a script which failed has left."""
    if pid.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), 9)
        pid.unlink()
        time.sleep(0.1)
