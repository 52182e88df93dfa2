"""Runs of messages, in Python and native: the records are those of the general path, and hostile content ends a run."""

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.config.settings import Record as RecordSettings
from cdc.lsn import LSN
from cdc.outbox.columns import Columns
from cdc.outbox.events import Event, Outbox
from cdc.outbox.keys import Keys
from cdc.records.encoding import Encoding
from cdc.records.fastpath.generated import source
from cdc.records.fastpath.layout import Layout, Make, Runs, layout, room
from cdc.records.record import Record, batch_size
from cdc.records.router import AVRO, Values
from cdc.replication.frames import XLOG_HEADER_SIZE
from cdc.replication.messages import LogicalMessage
from cdc.replication.pgoutput import decode
from cdc.replication.transactions import MESSAGE, Row
from tests.examples import examples
from tests.unit import frames, shop
from tests.unit.records.test_runs import (
    FITTING,
    MAKES,
    PREFIX,
    TIMESTAMP,
    TRANSACTION,
    UNFIT,
    Encoders,
    Framing,
    hurt,
)

MARK = "out:box/1"
LARGE = 1_000_000


class Reader:
    """Reads messages by the general path and, after `learn`, in runs of each shape."""

    def __init__(self, outbox: Outbox, make: Make, values: Values = AVRO) -> None:
        self.outbox = outbox
        self.encoding = Encoding(outbox, Encoders(values), Framing(), values=values)
        self.shapes: dict[int, tuple[Layout, Runs]] = {}
        self._make = make

    def general(self, frame: bytes, index: int) -> tuple[Event, Record]:
        """The record of a frame by the general path. Raises what it raises."""
        message = decode(frame, XLOG_HEADER_SIZE)
        assert isinstance(message, LogicalMessage)
        assert message.transactional
        assert message.prefix == MARK
        data = frames.row(message.content)
        event = self.outbox.event(Row(TRANSACTION, index, MESSAGE, data))
        return event, self.encoding.record(event)

    def learn(self, frame: bytes, largest: int = LARGE) -> None:
        """Teach the runs of its shape the route of a frame, if the general path takes it."""
        try:
            event, _ = self.general(frame, 0)
        except Exception:
            return
        relation, cells = event.row.relation, event.row.data.cells
        found = layout(relation, self.outbox, binary=False, prefix=MARK)
        if found is None or event.payload is None:
            return
        if relation.oid not in self.shapes:
            self.shapes[relation.oid] = found, self._make(found)
        _, runs = self.shapes[relation.oid]
        route = self.encoding.shared(event)
        assert route
        runs.learn(
            cells[found.type], tuple([cells[place] for place in found.topic]), route, room(found, route, largest)
        )

    def check(self, run: list[bytes], at: int = 0, index: int = 0, largest: int = LARGE) -> int:
        """Compare the records of `run[at:]` in each shape with those of the general path; returns the longest run."""
        longest = 0
        for _, runs in self.shapes.values():
            taken = runs.take(run, at, PREFIX, index, TIMESTAMP, TRANSACTION.report)
            assert at + len(taken) <= max(len(run), at)
            for number, record in enumerate(taken):
                assert record == self.general(run[at + number], index + number)[1]
                assert batch_size(Record(*record)) <= largest
                assert len(run[at + number]) <= largest, "the message itself would be poison"
            longest = max(longest, len(taken))
        return longest


class Shape(NamedTuple):
    """The names of members in their order, with those of `headers`; and how the time is written."""

    outer: list[str]
    given: list[str]
    time: str


DEFAULT, ODD = Columns(), Columns('i"d', "aggregate.type", "key", "type\\", "(payload)")
TIMES = {
    "text": ['"2026-01-31 08:00:00.123456+00"', '"2026-01-31T08:00:00.5Z"', '"2026-01-31T13:30:00.1239+05:30"', "null"],
    "number": ["1769846400123", '"1769846400123"', "1"],
}
STRANGE = [
    *(
        "",
        "null",
        "true",
        "{}",
        '{"a": 1}',
        "[]",
        "-0",
        "01",
        "1.0e400",
        "1.5",
        "-7",
        '"',
        '""',
        '" "',
        '"+5"',
        '"1_000"',
    ),
    *(
        r'"a\u0041"',
        r'"\ud800"',
        r'"a\"b"',
        '"\t"',
        '"\x7f"',
        '"é"',
        "NaN",
        "Infinity",
        '"Unknown"',
        '"infinity"',
        "5x",
    ),
    *('"20260131"', '"--5"', "18446744073709551616", '"0"', '"2026-01-31"', '5"', '"5', "[" * 3000 + "]" * 3000),
    *(json.dumps(value) for value in UNFIT),
    *('{"order": 1, "lines": [}', '{"order": 1, "lines": [], "note": NaN}', '{"order": 1, "lines": []}, "more": 1'),
    *('{"order": 1, "lines": [], "note": "\\ud800"}', '"\ufeff"', "\ufeff1", "\x0b1"),
]
SPACES = ["", "", " ", "\n\t\r "]


def outboxes() -> st.SearchStrategy[Outbox]:
    return st.builds(
        lambda columns, template, headers, tombstones, iso, key, time: shop.outbox(
            template.replace("aggregatetype", columns.aggregate),
            headers,
            columns,
            tombstones=tombstones,
            iso=iso,
            keys=key,
            time=time,
        ),
        st.sampled_from([DEFAULT, DEFAULT, ODD]),
        st.sampled_from(["outbox.event.{aggregatetype}", "events", "of.{aggregatetype}.{region}"]),
        st.sampled_from([[], ["tenant"], ["tenant", "region:where", "key:customer"], ["at:occurred", "headers"]]),
        st.booleans(),
        st.booleans(),
        st.builds(Keys, st.sampled_from(["text", "json", "json-schema"])),
        st.sampled_from([None, None, "at"]),
    )


@st.composite
def shapes(draw: st.DrawFn, outbox: Outbox) -> Shape:
    """A shape that messages of the outbox may have, each column in one place."""
    needed = outbox.columns.needed([], outbox.template, [])
    columns = {header.column: header.name for header in outbox.headers if header.column not in needed}
    optional = list(dict.fromkeys([*columns, *([outbox.time] if outbox.time else []), "traceparent"]))
    places = {name: draw(st.sampled_from(["outer", "given", "absent"])) for name in optional}
    outer = [*needed, *(name for name in optional if places[name] == "outer")]
    given = [draw(st.sampled_from([name, columns.get(name, name)])) for name in optional if places[name] == "given"]
    given += draw(st.sampled_from([[], [], ["more"], ["möre 😀", "id2"]]))
    if "headers" in columns:
        given = []
    elif draw(st.booleans()) or given:
        outer.append("headers")
    mixed: list[str] = draw(st.permutations(outer))
    return Shape(mixed if draw(st.booleans()) else outer, given, draw(st.sampled_from(sorted(TIMES))))


@st.composite
def contents(draw: st.DrawFn, outbox: Outbox, shape: Shape, *, right: bool) -> bytes:
    """What a message of this shape holds; unless it is `right`, something may be wrong with it."""
    columns, event_type = outbox.columns, draw(st.sampled_from(sorted(FITTING)))
    space = draw(st.sampled_from(SPACES))
    wrong = "" if right or draw(st.booleans()) else draw(st.sampled_from([*shape.outer, *shape.given]))

    def value(name: str) -> str:
        if name == wrong:
            return draw(st.sampled_from(STRANGE))
        if name == columns.type:
            return json.dumps(event_type.decode())
        if name == columns.payload:
            return json.dumps(draw(st.sampled_from(FITTING[event_type])), ensure_ascii=draw(st.booleans()))
        if outbox.time is not None and name in (outbox.time, "occurred"):
            return draw(st.sampled_from(TIMES[shape.time]))
        usual = ['"order"', '"o-1"', '"\u00fc\u2028"', "42", "-1.5e3", '"' + "x" * 130 + '"']
        if name in (columns.id, columns.key, columns.aggregate, "region"):
            return draw(st.sampled_from(usual[:2] if name in (columns.aggregate, "region") else usual))
        return draw(st.sampled_from([*usual, "null"]))

    def member(name: str) -> str:
        if name == "headers" and "headers" not in {header.column for header in outbox.headers}:
            held = whole(shape.given) if shape.given else draw(st.sampled_from(["{}", "null", f"{{{space}}}"]))
        else:
            held = value(name)
        return f"{space}{json.dumps(name, ensure_ascii=False)}{space}:{space}{held}{space}"

    def whole(names: list[str]) -> str:
        pairs = [member(name) for name in names]
        if not right and draw(st.integers(0, 9)) == 0:
            pairs.append(draw(st.sampled_from([*pairs, '"unknown":1', '"id2":"x"', '"\\u0069d":"x"', "", '"a"'])))
        return f"{{{','.join(pairs)}}}"

    return f"{space}{whole(shape.outer)}{space}".encode()


def message(content: bytes, lsn: int = 150) -> bytes:
    return frames.xlog(LogicalMessage(True, LSN(lsn), MARK, content), lsn)


@st.composite
def readers(draw: st.DrawFn) -> Reader:
    kinds: Any = {
        name: draw(st.sampled_from(["avro", "avro", "json", "text"])) for name in ("Placed", "Paid", "Either")
    }
    values = RecordSettings(values=kinds, check=draw(st.booleans()), content_type=draw(st.booleans()))
    return Reader(draw(outboxes()), MAKES[draw(st.sampled_from(sorted(MAKES)))], values)


@given(readers(), st.data(), st.sampled_from([LARGE, LARGE, 1_500]))
@examples(500)
def test_records_are_those_of_the_general_path(reader: Reader, data: st.DataObject, largest: int) -> None:
    known = data.draw(st.lists(shapes(reader.outbox), min_size=1, max_size=2))
    run = [
        message(data.draw(contents(reader.outbox, data.draw(st.sampled_from(known)), right=False)), number)
        for number in range(data.draw(st.integers(1, 6)))
    ]
    for frame in run:
        reader.learn(frame, largest)
    index = data.draw(st.sampled_from([0, 7, 0xFFFFFFFF]))
    for at in range(len(run) + 1):
        reader.check(run, at, index, largest)
    number = data.draw(st.integers(0, len(run) - 1))
    run[number] = data.draw(hurt(run[number]) | frames.messages().map(frames.xlog))
    for at in range(len(run)):
        reader.check(run, at, index, largest)


@given(readers(), st.data())
@examples(300)
def test_messages_that_nothing_is_wrong_with_are_taken(reader: Reader, data: st.DataObject) -> None:
    shape = data.draw(shapes(reader.outbox))
    run = [message(data.draw(contents(reader.outbox, shape, right=True))) for _ in range(data.draw(st.integers(1, 3)))]
    for frame in run:
        reader.general(frame, 0)
        reader.learn(frame)
    if len(reader.shapes) == 1:  # a time that is null is written as text
        assert reader.check(run) == len(run)


MAKE = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
CONTENT = (
    b'{"id": "a", "aggregatetype": "order", "aggregateid": "k", "type": "Placed", "payload": {"order": 1, "lines": []}}'
)


@MAKE
def test_a_run_of_messages_is_taken_whole_and_ends_at_what_is_not_plain(make: Make) -> None:
    reader = Reader(shop.outbox(), make)
    plain = message(CONTENT)
    assert reader.check([plain]) == 0, "no route yet"
    reader.learn(plain)
    assert reader.check([plain] * 300) == 300
    longer, other = (frames.xlog(LogicalMessage(True, LSN(1), mark, CONTENT)) for mark in (f"{MARK}2", f"{MARK[:-1]}2"))
    not_transactional = frames.xlog(LogicalMessage(False, LSN(1), MARK, CONTENT))
    for stop in [
        b"",
        b"w",
        plain[:-1],
        plain + b" ",
        b"k" + plain[1:],
        longer,
        other,
        not_transactional,
        message(CONTENT.replace(b'"k"', b"true")),
        message(CONTENT.replace(b'"k"', b"null")),
        message(CONTENT.replace(b'"k"', b'"\\u006b"')),
        message(CONTENT.replace(b'"id"', b'"\\u0069d"')),
        message(CONTENT.replace(b'"id": "a"', b'"id": "a", "id": "a"')),
        message(CONTENT.replace(b'"id": "a"', b'"id": "a", "more": "a"')),
        message(CONTENT.replace(b"[]}}", b"[]}")),
        message(CONTENT.replace(b'{"order": 1, "lines": []}', b"null")),
        message(CONTENT.replace(b'"a"', b'"\xff"')),
        message(CONTENT + b"}"),
    ]:
        taken = [runs.take([plain, stop, plain], 0, PREFIX, 0, TIMESTAMP, print) for _, runs in reader.shapes.values()]
        assert list(map(len, taken)) == [1], stop


@MAKE
def test_payloads_of_text_that_nothing_else_parses_are_json(make: Make) -> None:
    values: Any = RecordSettings(values={"Placed": "text"}, check=False)
    reader = Reader(shop.outbox(), make, values)
    reader.learn(message(CONTENT))
    assert reader.check([message(CONTENT.replace(b"1, ", b"1.50e1,  ")), message(CONTENT)]) == 2
    for broken in (b"[", b"01", b'"x": 1', b"NaN", b'1}, "more": {"a": 1', b"\xff"):
        assert reader.check([message(CONTENT.replace(b'{"order": 1, "lines": []}', broken))]) == 0


@MAKE
def test_a_deep_payload_is_left_to_the_general_path(make: Make) -> None:
    values: Any = RecordSettings(values={"Placed": "text"}, check=False)
    reader = Reader(shop.outbox(), make, values)
    reader.learn(message(CONTENT))
    deep = b"[" * 1000 + b"]" * 1000
    assert reader.check([message(CONTENT.replace(b'{"order": 1, "lines": []}', deep))]) == 0


@MAKE
@pytest.mark.parametrize(
    "payload", [b"1.0e400", b"12345678901234567890.10", b'{"a":  [1.50,\t-0.0E+1 ], "a": "\xc3\xa4"}']
)
def test_a_payload_in_the_middle_is_sent_as_it_stands(make: Make, payload: bytes) -> None:
    values: Any = RecordSettings(values={"Placed": "text"}, check=False)
    reader = Reader(shop.outbox(), make, values)
    held = b'{"id":"a","type":"Placed","payload": %b , "aggregateid":"k","aggregatetype":"order"}'
    reader.learn(message(held % b"{}"))
    assert reader.check([message(held % b"{}")]) == 1
    taken = [runs.take([message(held % payload)], 0, PREFIX, 0, TIMESTAMP, print) for _, runs in reader.shapes.values()]
    for ((_, value, *_),) in filter(None, taken):
        assert value == payload
    reader.check([message(held % payload)])


def test_the_source_of_a_shape_has_no_loop_over_members() -> None:
    outbox = shop.outbox(headers=["tenant"])
    reader = Reader(outbox, MAKES["python"])
    reader.learn(message(CONTENT))
    ((found, _),) = reader.shapes.values()
    text = source(found)
    assert text.count("for ") == 1
    assert "found = match(frame, " in text
    assert found.cells[found.payload] == "text"
