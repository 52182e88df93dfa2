"""The programs of docs/consumers.md as they are printed, with real servers: only addresses and names are replaced."""

import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import psycopg
import pytest
from confluent_kafka import Producer
from fastavro import parse_schema, schemaless_writer
from psycopg import conninfo

from cdc.avro.framing import HEADER_SIZE
from cdc.consumer import Decoder
from cdc.errors import LocalStackError
from cdc.local import maven, packages
from tests import documents, foreign
from tests.consuming import make_topic
from tests.documents import ROOT
from tests.golden import POSITION, SCHEMAS, Golden, load
from tests.pipeline import eventually
from tests.servers import CACHE, Servers

PAGE: Final = ROOT / "docs" / "consumers.md"
TEST: Final = "tests/integration/test_other_languages.py"
MADE: Final = CACHE / "languages"  # what is downloaded for them
BEYOND_DOUBLES: Final = 2**53 + 1
CODE_OF_JAVA: Final = "17"
ECLIPSE: Final = "org.eclipse.jdt:ecj:3.43.0"  # the local stack has a Java without a compiler
NODE: Final = ("avsc@5", "kafkajs@2", "pg@8")
GO: Final = (
    "github.com/hamba/avro/v2@v2.31.0",
    "github.com/jackc/pgx/v5@v5",
    "github.com/twmb/franz-go/pkg/kgo@v1.22.3",
)

CONVERTERS: Final = """
import java.io.StringReader;
import java.util.*;
import org.apache.kafka.connect.storage.*;

public final class Converters {
    static Properties settings = new Properties();

    static <T> T made(String setting, Class<T> type) throws Exception {
        return type.cast(Class.forName(settings.getProperty(setting)).getDeclaredConstructor().newInstance());
    }

    public static void main(String[] given) throws Exception {
        settings.load(new StringReader(given[0]));
        Converter key = made("key.converter", Converter.class);
        Converter value = made("value.converter", Converter.class);
        HeaderConverter header = made("header.converter", HeaderConverter.class);
        key.configure(Map.of(), true);
        value.configure(Map.of(), false);
        header.configure(Map.of("converter.type", "header"));
        byte[] body = HexFormat.of().parseHex(given[1]);
        System.out.println(key.toConnectData("t", given[2].getBytes("UTF-8")).value());
        System.out.println(HexFormat.of().formatHex((byte[]) value.toConnectData("t", body).value()));
        System.out.println((String) header.toConnectHeader("t", "id", given[3].getBytes("UTF-8")).value());
        System.out.println(new SimpleHeaderConverter().toConnectHeader("t", "id", given[3].getBytes("UTF-8")).value());
    }
}
"""

pytestmark = [
    pytest.mark.timeout(900),  # a first build of Go's packages takes minutes on a busy machine
    pytest.mark.skipif(
        not os.environ.get("CDC_TEST_NIGHTLY"), reason="downloads compilers and packages: see make nightly"
    ),
]

Command = list[str]


@dataclass(frozen=True)
class Place:
    """Where a program runs, with the contracts, and what its addresses and names are here."""

    folder: Path
    dsn: str
    kafka: str
    topic: str

    def program(self, language: str) -> str:
        """The page's program in a language."""
        text = next(block(language))
        given = conninfo.conninfo_to_dict(self.dsn)
        host, user, password = f"{given['host']}:{given.get('port', 5432)}", given["user"], given.get("password")
        secret = f":{password}" if password else ""
        replaced = {
            "jdbc:postgresql://127.0.0.1/shop?user=postgres": f"jdbc:postgresql://{host}/{given['dbname']}?user={user}"
            + (f"&password={password}" if password else ""),
            "postgresql://postgres@127.0.0.1/shop": f"postgresql://{user}{secret}@{host}/{given['dbname']}",
            "127.0.0.1:9092": self.kafka,
            "outbox.event.order": self.topic,
            '"billing"': f'"{self.topic}"',  # a group of its own
        }
        found = [printed for printed in replaced if printed in text]
        assert len(found) == 4, found  # else the program would reach another's servers
        for printed in found:
            text = text.replace(printed, replaced[printed])
        return text

    def write(self, name: str, text: str) -> Path:
        """Write a file into the folder."""
        (self.folder / name).write_text(text)
        return self.folder / name


def block(language: str) -> Iterator[str]:
    """The page's blocks in a language that this file runs."""
    return (each.text for each in documents.blocks(PAGE) if (each.language, each.test) == (language, TEST))


def done(command: Command, folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a folder to its end."""
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture
def place(tmp_path: Path, database: str, topic_prefix: str, servers: Servers) -> Place:
    """Contracts and tables as the page makes them, and an empty topic."""
    (tmp_path / "schemas").symlink_to(SCHEMAS)
    programs = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    made = done(["bash", "-ec", next(block("sh"))], tmp_path, PATH=programs)
    assert made.returncode == 0, made.stderr
    with psycopg.connect(database) as connection:
        connection.execute(next(block("sql")).encode())
    return Place(tmp_path, database, servers.kafka, make_topic(servers.kafka, f"{topic_prefix}order"))


def java(place: Place) -> Command:
    """Compile with Eclipse's compiler, and run with the local stack's Java."""
    path = os.pathsep.join(map(str, jars("org.apache.avro:avro:1.12.1", "org.postgresql:postgresql:42.7.8")))
    compile_java(place.write("Orders.java", place.program("java")), path)
    return [str(packages.java()), "-cp", f"{place.folder}{os.pathsep}{path}", "Orders"]


def jars(*coordinates: str) -> list[Path]:
    """Download jars; of the first with its dependencies, and those of Kafka's client."""
    try:
        found = [jar for jar in packages.kafka() if jar.name.startswith(("kafka-clients-", "lz4-java-"))]
        return [*maven.download(coordinates, MADE / "jars", coordinates[0], None), *found]
    except LocalStackError as error:
        pytest.skip(f"{error}")


def compile_java(file: Path, path: str) -> None:
    """Compile a file into its folder."""
    compiler = next(jar for jar in jars(ECLIPSE) if jar.name.startswith("ecj-"))
    options = [f"-{CODE_OF_JAVA}", "-nowarn", "-cp", path, "-d", str(file.parent), str(file)]
    compiled = done([str(packages.java()), "-jar", str(compiler), *options], file.parent)
    assert compiled.returncode == 0, compiled.stderr


def node(place: Place) -> Command:
    """Install the packages where they are not, and run."""
    npm, program = shutil.which("npm"), shutil.which("node")
    if npm is None or program is None:
        pytest.skip("there is no npm and node")
    folder = MADE / "node"
    folder.mkdir(parents=True, exist_ok=True)
    if not all((folder / "node_modules" / name.partition("@")[0]).is_dir() for name in NODE):
        installed = done(
            [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *NODE], folder
        )
        if installed.returncode != 0:
            pytest.skip(f"npm cannot install {', '.join(NODE)}: {installed.stderr[-300:]}")
    (place.folder / "node_modules").symlink_to(folder / "node_modules")
    return [program, str(place.write("orders.js", place.program("js")))]


def go(place: Place) -> Command:
    """Get the modules where they are not, and build."""
    program = shutil.which("go")
    if program is None:
        pytest.skip("there is no go")
    place.write("go.mod", "module orders\n\ngo 1.24\n")
    got = done([program, "get", *GO], place.folder)
    if got.returncode != 0:
        pytest.skip(f"go cannot get {', '.join(GO)}: {got.stderr[-300:]}")
    built = done([program, "build", "-o", "orders", str(place.write("main.go", place.program("go")))], place.folder)
    assert built.returncode == 0, built.stderr
    return [str(place.folder / "orders")]


def faststream(place: Place) -> Command:
    """Run with this Python, behind a record that confluent-kafka cannot read the headers of."""
    if find_spec("faststream") is None:
        pytest.skip("there is no FastStream: pip install -e '.[dev]'")
    foreign.produce(place.kafka, place.topic, [(b"\xff\xfe", b"x")])
    return [sys.executable, str(place.write("orders.py", place.program("python")))]


@pytest.mark.parametrize("program", [java, node, go, faststream], ids=lambda each: each.__name__)
def test_case_g6_a_program_of_the_page_applies_each_event_once(
    program: Callable[[Place], Command], place: Place
) -> None:
    command = program(place)
    event, tombstone = load("event"), load("tombstone")
    send(place, [event, event, large(event), tombstone._replace(headers=[("id", b"none"), *tombstone.headers[1:]])])
    log = place.folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=place.folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: process.poll() is not None or seen(place, "none"), "the tombstone was read", 120)
        assert seen(place, "none"), log.read_text()[-3000:]
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with psycopg.connect(place.dsn) as connection:
        written = connection.execute("select order_key, customer, total::text, position from invoice").fetchall()
    assert written == [("o-1", 7, "19.90", POSITION), ("o-1", BEYOND_DOUBLES, "19.90", POSITION)]


def test_case_g6_the_converters_of_the_page_keep_the_bytes_and_the_id(tmp_path: Path) -> None:
    path = os.pathsep.join(
        map(
            str,
            jars(*(f"org.apache.kafka:{name}:{packages.KAFKA_VERSION}" for name in ("connect-api", "connect-runtime"))),
        )
    )
    (tmp_path / "Converters.java").write_text(CONVERTERS)
    compile_java(tmp_path / "Converters.java", path)
    event = load("event")
    assert event.value is not None
    given = [next(block("properties")), event.value.hex(), "o-1", "007"]
    run = done([str(packages.java()), "-cp", f"{tmp_path}{os.pathsep}{path}", "Converters", *given], tmp_path)
    # The last is what the default would make of the id.
    assert (run.stdout.split(), run.returncode) == (["o-1", event.value.hex(), "007", "7"], 0), run.stderr


def large(event: Golden) -> Golden:
    """Another order of a customer whose number a double cannot represent."""
    assert event.value is not None
    order = Decoder(folder=SCHEMAS / "shop")(event.value)
    order["customer"]["id"] = BEYOND_DOUBLES
    body = io.BytesIO()
    contract = json.loads((SCHEMAS / "shop" / "OrderPlaced.avsc").read_text())
    schemaless_writer(body, parse_schema(contract), order)
    return event._replace(
        value=event.value[:HEADER_SIZE] + body.getvalue(), headers=[("id", b"large"), *event.headers[1:]]
    )


def send(place: Place, records: list[Golden]) -> None:
    """Produce records and wait for them."""
    producer = Producer({"bootstrap.servers": place.kafka})
    for record in records:
        headers: list[tuple[str, str | bytes | None]] = [*record.headers]
        producer.produce(place.topic, record.value, record.key, headers=headers)
    assert producer.flush(30) == 0


def seen(place: Place, event_id: str) -> bool:
    """Whether the inbox has an event."""
    with psycopg.connect(place.dsn) as connection:
        return connection.execute("select from inbox where event_id = %s", [event_id]).rowcount == 1
