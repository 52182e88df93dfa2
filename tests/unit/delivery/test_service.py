"""The service between servers in memory: what ends it, what it tries again, and what it does not go on with."""

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import pytest

from cdc.config.settings import Settings
from cdc.delivery.ports import Ends, Observation, SlotHealth, Stopping, StreamDefect, WalEnd
from cdc.delivery.positions import AT_LEAST_ONCE, EXACTLY_ONCE, Memory, RememberedTopic, SlotRecord
from cdc.delivery.service import Service
from cdc.delivery.slot_memory import claim
from cdc.errors import (
    CdcError,
    Fenced,
    KafkaError,
    KafkaRefused,
    KafkaUnavailable,
    PostgresError,
    PostgresRefused,
    PostgresUnavailable,
    SlotActive,
)
from cdc.lsn import LSN, EventPosition
from cdc.records.router import Encoder
from cdc.replication.messages import Insert
from cdc.telemetry.metrics import HELD, STANDBY, STOPPING, STREAMING, WAITING, Metrics
from tests.memory import Clock, MemorySink, MemorySource, MemoryTail, MemoryTails
from tests.unit import frames, shop
from tests.unit.loop import failed
from tests.unit.shop import EVENT_ID, event, transaction

DEFINITION = {"table": "public.outbox", "table oid": "5", "publication": "shop", "publication oid": "1"}
MARK = SlotRecord("7300", 1, "cdc_publisher", LSN(100), DEFINITION, {})


class Flag:
    """An event whose waiting takes the clock's time; it is set at `at`."""

    def __init__(self, clock: Clock, at: float | None = None) -> None:
        self._clock = clock
        self._at = at

    def is_set(self) -> bool:
        return self._at is not None and self._clock.now >= self._at

    def set(self) -> None:
        self._at = self._clock.now

    def clear(self) -> None:
        self._at = None

    def wait(self, timeout: float, /) -> None:
        self._clock.advance(timeout)


class Contracts(shop.Encoders, shop.Framing):
    """Contracts that are what they are."""

    envelope: Encoder | None = None
    names: list[str] = []  # noqa: RUF012 - as a protocol wants it

    def read(self) -> None:
        pass

    def examine(self, event_type: str, body: bytes) -> bool:  # noqa: ARG002
        return True


def holding(commit_lsn: int) -> MemoryTail:
    tail = MemoryTail()
    tail.ids = {(0, commit_lsn, 0): EVENT_ID}
    return tail


class Eyes:
    """A sentinel that sees what it is given, once each."""

    def __init__(self, *seen: Observation) -> None:
        self._seen = list(seen)

    def observe(self) -> list[Observation]:
        seen, self._seen = self._seen, []
        return seen


class World:
    """Servers that answer with what `attempts` say, in turn: an error, or a session with the given eyes."""

    def __init__(
        self, *attempts: CdcError | Eyes, mark: SlotRecord = MARK, remembered: SlotRecord | None = None
    ) -> None:
        self.clock = Clock(tick=0.001)
        self.attempts = list(attempts)
        self.mark = self.later = mark  # of the first session, and of those after it
        self.remembered = remembered
        self.handed_over: list[SlotRecord] = []
        self.tails = MemoryTails()
        self.used = self.forgotten = False
        self.topics: Mapping[str, RememberedTopic] = {}
        self.there: Mapping[str, RememberedTopic] = {}
        self.trusted: list[Mapping[str, RememberedTopic]] = []
        self.timelines: Mapping[int, LSN] = {}
        self.unreachable = 0  # times that Kafka does not say which topics there are
        self.asked = 0
        self.opened_at: list[float] = []
        self.sources: list[MemorySource] = []
        self.sinks: list[MemorySink] = []
        self.rows = [transaction(200, event())]
        self.binary: list[list[bytes]] | None = None  # what comes instead where binary values are requested
        self.asked_for_text: list[bool] = []

    def open(self, stack: contextlib.ExitStack, *, text: bool) -> Ends:
        self.opened_at.append(self.clock.now)
        self.asked_for_text.append(text)
        attempt = self.attempts.pop(0) if len(self.attempts) > 1 else self.attempts[0]
        if isinstance(attempt, CdcError):
            raise attempt
        mark = self.later if self.sources else self.mark
        source, sink = MemorySource(self.clock, self.rows if text else self.binary or self.rows), MemorySink(self.clock)
        sink.settles_at_once = True
        self.sources.append(source)
        self.sinks.append(sink)
        stack.callback(source.stop)

        def remembered() -> Memory:
            self.asked += 1
            return Memory(self.remembered, self.forgotten, self.topics)

        def identities(_: Collection[str]) -> Mapping[str, RememberedTopic]:
            if self.unreachable:
                self.unreachable -= 1
                raise KafkaUnavailable("no answer")
            return self.there

        return Ends(
            source=source,
            sink=sink,
            sentinel=attempt,
            topics=shop.Topics(),
            outbox=shop.outbox(),
            dead_letters=None,
            slot=mark,
            remembered=remembered,
            hand_over=self.handed_over.append,
            tails=self.tails,
            wal_end=LSN(1000),
            used=self.used,
            timelines=self.timelines,
            failed=failed,
            wal_sender_timeout=60.0,
            binary=True,
            identities=identities,
            trust=self.trusted.append,
        )

    def service(
        self,
        stop_at: float | None = 1030.0,
        *,
        accept_changes: bool = False,
        guarantee: str = AT_LEAST_ONCE,
        metrics: Metrics | None = None,
        taken: Callable[[], bool] | None = None,
        renamed_to: str | None = None,
    ) -> Service:
        settings = Settings.model_validate(
            {
                "postgres": {"dsn": "postgresql://nowhere"},
                "outbox": {"renamed_to": renamed_to},
                "delivery": {"guarantee": guarantee},
            }
        )
        stop, reload = Flag(self.clock, stop_at), Flag(self.clock)
        return Service(
            settings,
            Contracts(),
            self,
            stop,
            reload,
            self.clock,
            lambda: 0.5,
            accept_changes=accept_changes,
            metrics=metrics,
            taken=taken,
            metered=True,
        )


def test_it_publishes_until_it_is_told_to_stop_and_leaves_nothing_unconfirmed() -> None:
    world = World(Eyes(WalEnd(LSN(208))))
    assert world.service().run() is True
    assert world.sources[0].confirmed[-1] == 208


def test_a_defect_of_the_stream_ends_it_before_anything_more_is_confirmed_b5() -> None:
    world = World(Eyes(StreamDefect(PostgresError("the publication has no table any more"))))
    with pytest.raises(PostgresError, match="no table any more"):
        world.service().run()
    assert set(world.sources[0].confirmed) <= {100}


@pytest.mark.parametrize(
    ("oid", "sent"), [(str(shop.OID), 1), ("5", 0)], ids=["of the outbox", "of the new table of its name"]
)
def test_a_publisher_whose_table_is_renamed_knows_its_rows_by_the_identity_of_the_table(oid: str, sent: int) -> None:
    world = World(Eyes(), mark=replace(MARK, definition={**DEFINITION, "table oid": oid}))
    assert world.service(renamed_to="outbox_old").run() is True
    assert events(world) == sent


HERE = {"a": RememberedTopic("id-a", 3), "b": RememberedTopic("id-b", 1)}


def test_case_d4_topics_that_are_the_same_are_trusted() -> None:
    world = World(Eyes(Stopping("fast")), Eyes(), remembered=MARK)
    world.topics = world.there = HERE
    assert world.service().run() is True
    assert world.trusted == [HERE]  # once: they are monitored from then on


def test_case_d4_a_topic_of_another_id_is_reported_until_it_is_accepted() -> None:
    world = World(Eyes(), remembered=MARK)
    world.topics, world.there = HERE, HERE | {"b": RememberedTopic("new", 1)}
    with pytest.raises(PostgresError, match="topic 'b' was deleted and re-created") as caught:
        world.service().run()
    assert "start --accept-changes" in caught.value.hint
    assert events(world) == 0
    assert world.service(accept_changes=True).run() is True
    assert world.trusted[-1] == {"a": HERE["a"]}


def test_case_d4_a_topic_that_is_gone_is_reported_and_stays_remembered(caplog: pytest.LogCaptureFixture) -> None:
    world = World(Eyes(), remembered=MARK)
    world.topics, world.there = HERE, {"a": HERE["a"]}
    assert world.service().run() is True
    assert "1 topics do not exist any more, and the events in them are lost: b" in caplog.text
    assert world.trusted == [HERE]


def test_case_d4_topics_are_compared_when_the_first_try_failed() -> None:
    world = World(Eyes(), remembered=MARK)
    world.topics, world.there = HERE, HERE | {"b": RememberedTopic("new", 1)}
    world.unreachable = 1
    with pytest.raises(PostgresError, match="topic 'b' was deleted and re-created"):
        world.service().run()


def test_case_d4_another_cluster_is_reported_and_its_topics_are_not_compared() -> None:
    world = World(Eyes(), mark=replace(MARK, cluster="new"), remembered=replace(MARK, cluster="old"))
    world.topics = HERE
    with pytest.raises(PostgresError, match="Kafka is another cluster, with the id 'new', and was 'old'") as caught:
        world.service().run()
    assert "topic 'a'" not in caught.value.message
    assert world.service(accept_changes=True).run() is True
    assert world.trusted[-1] == {}
    unknown = World(Eyes(), mark=replace(MARK, cluster="new"), remembered=MARK)  # by 0.1.0
    assert unknown.service().run() is True


@pytest.mark.parametrize("timelines", [{}, {1: LSN(90)}])
def test_case_d9_a_timeline_without_history_is_unknown_and_not_taken_for_nothing(timelines: dict[int, LSN]) -> None:
    remembered = replace(MARK, timeline=2, guarantee=EXACTLY_ONCE, position=EventPosition(LSN(90), 0), caught_up=True)
    world = World(Eyes(), mark=replace(MARK, timeline=3), remembered=remembered)
    world.timelines = timelines
    with pytest.raises(PostgresError, match="does not know where timeline 2 ended") as caught:
        world.service(guarantee=EXACTLY_ONCE).run()
    assert "put 00000003.history back into pg_wal" in caught.value.message
    assert events(world) == 0
    assert world.service(guarantee=EXACTLY_ONCE, accept_changes=True).run() is True
    known = World(Eyes(), mark=replace(MARK, timeline=3), remembered=remembered)
    known.timelines = {1: LSN(50), 2: LSN(95)}
    assert known.service(guarantee=EXACTLY_ONCE).run() is True
    never = World(Eyes(), mark=replace(MARK, timeline=3), remembered=replace(remembered, position=None))
    assert never.service(guarantee=EXACTLY_ONCE).run() is True  # nothing was committed


@pytest.mark.parametrize("guarantee", [AT_LEAST_ONCE, EXACTLY_ONCE])
def test_case_d7_a_slot_is_claimed_before_it_is_read_and_only_then(guarantee: str) -> None:
    nothing = Memory(None, forgotten=False)
    claimed = claim(MARK, nothing, guarantee)
    assert claimed == replace(MARK, guarantee=guarantee)
    assert not claimed.caught_up  # what was sent is looked for
    assert claim(MARK, Memory(MARK, forgotten=True), guarantee) is None


def test_a_server_that_shuts_down_is_left_and_tried_again_b17_b18() -> None:
    world = World(Eyes(Stopping("fast shutdown")), PostgresUnavailable("the system is starting up"), Eyes())
    assert world.service().run() is True
    assert len(world.sources) == 2


def test_case_a2_after_a_binary_value_of_an_unknown_type_text_is_read_until_the_slot_has_passed_it() -> None:
    world = World(Eyes(), Eyes(WalEnd(LSN(208)), Stopping("fast")), Eyes())
    enum = frames.relation(
        shop.OID, "outbox", [(name, 16500 if name == "type" else kind) for name, kind in shop.COLUMNS]
    )
    row = frames.xlog(Insert(shop.OID, frames.row(bytes(16), b"order", b"o-1", b"OrderPlaced", b"\x01{}")))
    world.binary = [[shop.begin(200), shop.relation(enum), row, shop.commit(200)]]
    assert world.service(stop_at=1010.0).run() is True
    assert world.asked_for_text[:3] == [False, True, False]
    assert world.sources[1].confirmed[-1] == 208


def test_a_standby_waits_without_end_b15() -> None:
    world = World(SlotActive("slot is active for PID 7"))
    assert world.service(stop_at=2000.0).run() is True
    assert 600 < len(world.opened_at) < 1100


def test_a_patient_standby_asks_who_reads_the_slot_after_a_minute_and_tries_when_it_is_free() -> None:
    world = World(SlotActive("slot is active for PID 7"))
    asked: list[float] = []

    def taken() -> bool:
        asked.append(world.clock.now)
        return len(asked) < 100

    assert world.service(stop_at=2000.0, taken=taken).run() is True
    before = [at for at in world.opened_at if at < asked[0]]
    assert 40 < len(before) < 100
    assert asked[0] - before[0] >= 60
    assert not [at for at in world.opened_at if asked[0] < at < asked[99]]
    assert 400 < asked[99] - asked[0] < 600
    assert [at for at in world.opened_at if at > asked[99]]


def test_a_patient_standby_tries_when_postgresql_does_not_say_who_reads_the_slot() -> None:
    world = World(SlotActive("slot is active for PID 7"))

    def taken() -> bool:
        raise PostgresUnavailable("no answer")

    assert world.service(stop_at=1200.0, taken=taken).run() is True
    assert len(world.opened_at) > 120


def test_a_standby_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert World(SlotActive("slot is active for PID 7")).service(stop_at=1100.0).run() is True
    assert caplog.text.count("standby: another publisher is active") == 1


def test_servers_that_were_never_reached_are_given_up_and_others_are_not_b18() -> None:
    never = World(PostgresUnavailable("connection refused"))
    with pytest.raises(PostgresUnavailable):
        never.service(stop_at=None).run()
    assert never.clock.now < 1000 + 15 + 6
    later = World(Eyes(Stopping("fast")), KafkaUnavailable("no broker"))
    assert later.service(stop_at=1600.0).run() is True


@pytest.mark.parametrize("refused", [PostgresRefused, KafkaRefused])
def test_a_refused_password_is_tried_again_a_few_times_where_it_was_good_before_b20(refused: type[CdcError]) -> None:
    world = World(Eyes(Stopping("fast")), refused("authentication failed"))
    with pytest.raises(refused):
        world.service(stop_at=None).run()
    assert len(world.opened_at) == 1 + 6
    rotated = World(Eyes(Stopping("fast")), refused("authentication failed"), Eyes())
    assert rotated.service().run() is True
    first = World(refused("authentication failed"))
    with pytest.raises(refused):
        first.service().run()
    assert len(first.opened_at) == 1


@pytest.mark.parametrize(
    ("remembered", "told"),
    [
        (replace(MARK, confirmed=LSN(99)), "it was advanced, or dropped and created again"),
        (
            replace(MARK, definition=DEFINITION | {"publication oid": "2"}),
            "publication shop was dropped and created again",
        ),
    ],
)
def test_it_does_not_start_on_a_slot_that_is_not_as_it_was_left_unless_told_to_a19_b1_b4(
    remembered: SlotRecord, told: str
) -> None:
    world = World(Eyes(), remembered=remembered)
    with pytest.raises(PostgresError, match=told) as caught:
        world.service().run()
    assert "start --accept-changes" in caught.value.hint
    assert world.sources[0].written == []
    assert World(Eyes(), remembered=remembered).service(accept_changes=True).run() is True


def test_changes_are_accepted_once_and_not_for_ever_a19() -> None:
    world = World(Eyes(Stopping("fast")), Eyes(), remembered=replace(MARK, confirmed=LSN(99)))
    world.later = replace(MARK, confirmed=LSN(900))
    with pytest.raises(PostgresError, match="stands at 0/384"):
        world.service(accept_changes=True).run()
    assert len(world.sources) == 2


def test_case_a2_accepted_changes_stay_accepted_until_kafka_has_a_new_record() -> None:
    # A session that ends before its first record, such as one that has to be followed by one of text.
    before = replace(MARK, definition=DEFINITION | {"publication oid": "2"}, guarantee=EXACTLY_ONCE)
    world = World(Eyes(Stopping("fast")), Eyes(), remembered=before)
    assert world.service(guarantee=EXACTLY_ONCE, accept_changes=True).run() is True
    assert len(world.sources) == 2


def test_kafka_is_not_asked_again_for_what_the_process_knows_itself() -> None:
    world = World(Eyes(Stopping("fast")), Eyes(Stopping("fast")), Eyes(), remembered=MARK)
    assert world.service().run() is True
    assert len(world.sources) == 3
    assert world.asked == 1


def positions(world: World) -> list[SlotRecord]:
    """What Kafka was told."""
    return [
        SlotRecord.decode(record.value)
        for record in world.sinks[-1].sent
        if record.topic == "cdc.positions" and record.value
    ]


def events(world: World) -> int:
    return sum(record.topic != "cdc.positions" for record in world.sinks[-1].sent)


COMMITTED = replace(MARK, guarantee=EXACTLY_ONCE, caught_up=True, position=EventPosition(LSN(200), 0))


def test_what_a_kafka_transaction_has_made_visible_is_not_sent_again_c18() -> None:
    world = World(Eyes(), remembered=COMMITTED)
    assert world.service(guarantee=EXACTLY_ONCE).run() is True
    assert events(world) == 0
    assert world.tails.asked == []
    assert world.sources[0].confirmed[-1] == 208
    before = World(Eyes(), remembered=replace(COMMITTED, position=EventPosition(LSN(199), 9)))
    assert before.service(guarantee=EXACTLY_ONCE).run() is True
    assert events(before) == 1
    assert positions(before)[-1].position == EventPosition(LSN(200), 0)


def test_case_b1_a_position_from_before_a_child_came_or_went_is_compared_with_the_topics() -> None:
    definition = {**DEFINITION, "children": "public.child", "child oids": "6"}
    now = replace(MARK, definition={**DEFINITION, "children": "none", "child oids": "none"})
    before = replace(COMMITTED, definition=definition)
    for held, sent in ((MemoryTails(), 1), (MemoryTails(**{"outbox.event.order": holding(200)}), 0)):
        world = World(Eyes(), mark=now, remembered=before)
        world.tails = held
        assert world.service(guarantee=EXACTLY_ONCE, accept_changes=True).run() is True
        assert events(world) == sent
        assert not positions(world)[0].caught_up


def test_positions_are_read_for_each_session_because_a_commit_may_have_come_through_c18() -> None:
    world = World(Eyes(Stopping("fast")), Eyes(Stopping("fast")), Eyes(), remembered=COMMITTED)
    world.service(guarantee=EXACTLY_ONCE).run()
    assert world.asked == len(world.opened_at) == 3


@pytest.mark.parametrize("guarantee", [AT_LEAST_ONCE, EXACTLY_ONCE])
def test_case_d4_a_slot_that_was_in_use_and_of_which_kafka_knows_nothing_is_not_used_c19(guarantee: str) -> None:
    world = World(Eyes())
    world.used = True
    with pytest.raises(PostgresError, match="holds no position of replication slot 'cdc_publisher'") as caught:
        world.service(guarantee=guarantee).run()
    assert "start --accept-changes" in caught.value.hint
    assert events(world) == 0
    accepted = World(Eyes())
    accepted.used = True
    assert accepted.service(guarantee=guarantee, accept_changes=True).run() is True
    assert accepted.tails.asked  # whatever was sent is found there
    forgotten = World(Eyes())
    forgotten.used = forgotten.forgotten = True
    assert forgotten.service(guarantee=guarantee).run() is True
    assert World(Eyes()).service(guarantee=guarantee).run() is True


def test_what_was_sent_at_least_once_is_looked_for_before_the_position_counts_alone() -> None:
    world = World(Eyes(), remembered=MARK)
    world.tails = MemoryTails(**{"outbox.event.order": holding(200)})
    assert world.service(guarantee=EXACTLY_ONCE).run() is True
    assert events(world) == 0
    assert not positions(world)[0].caught_up
    assert world.handed_over == []


def test_open_transactions_are_ended_before_events_are_sent_without_them_b16() -> None:
    world = World(Eyes(), remembered=COMMITTED)
    world.tails = MemoryTails()
    assert world.service().run() is True
    (mark,) = world.handed_over
    assert (mark.guarantee, mark.caught_up, mark.position) == (AT_LEAST_ONCE, False, COMMITTED.position)
    assert events(world) == 0  # it is not beyond the position, which still is true
    assert World(Eyes(), remembered=MARK).service().run() is True


def test_a_publisher_that_is_fenced_again_and_again_ends_and_one_that_is_fenced_now_and_then_does_not_b16() -> None:
    world = World(Fenced("another producer has our transactional id"))
    with pytest.raises(KafkaError, match="again and again, although no other publisher is active"):
        world.service(stop_at=None, guarantee=EXACTLY_ONCE).run()
    assert len(world.opened_at) == 6
    waits = [error for _ in range(20) for error in (Fenced("taken over"), *[SlotActive("active")] * 70)]
    rarely = World(*waits, Eyes())
    assert rarely.service(stop_at=9000.0, guarantee=EXACTLY_ONCE).run() is True


class Diary(Metrics):
    """Metrics that keep every phase."""

    def __init__(self) -> None:
        super().__init__()
        self.phases: list[str] = []

    def enter(self, phase: str, now: float, reason: str = "") -> None:
        if not self.phases or self.phases[-1] != phase:
            self.phases.append(phase)
        super().enter(phase, now, reason)


def test_each_phase_of_the_service_is_written_down_with_what_it_counted() -> None:
    waits = [SlotActive("active for PID 7"), SlotActive("active for PID 7", held="PID 7 was ours")]
    health = SlotHealth(5, 100, 95, "reserved")
    world = World(PostgresUnavailable("starting up"), *waits, Eyes(WalEnd(LSN(300)), health), Eyes())
    diary = Diary()
    assert world.service(metrics=diary).run() is True
    assert diary.phases == [WAITING, STANDBY, HELD, STREAMING, STOPPING]
    assert diary.trouble is not None
    assert (diary.trouble.kind, diary.trouble.message) == ("PostgresUnavailable", "starting up")
    assert (diary.read, diary.delivered, diary.transactions, diary.sessions, diary.reconnects) == (1, 1, 1, 1, 0)
    assert (diary.confirmed, diary.wal_end, diary.retained, diary.limit) == (LSN(208), LSN(300), 5, 100)


def test_counters_go_on_from_session_to_session() -> None:
    world = World(Eyes(Stopping("fast shutdown")), Eyes())
    diary = Diary()
    assert world.service(metrics=diary).run() is True
    assert (diary.sessions, diary.reconnects, diary.read, diary.delivered) == (2, 1, 2, 2)


@pytest.mark.parametrize("guarantee", [AT_LEAST_ONCE, EXACTLY_ONCE])
def test_a_server_that_was_set_back_is_not_gone_on_with_where_new_events_would_pass_for_old_ones_b13(
    guarantee: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(Eyes(), remembered=replace(MARK, confirmed=LSN(1001), guarantee=guarantee))
    if guarantee == EXACTLY_ONCE:
        with pytest.raises(PostgresError, match=r"set back: its WAL ends at 0/3E8, .* to 0/3E9; .* a new name"):
            world.service(guarantee=guarantee, accept_changes=True).run()
        assert len(world.opened_at) == 2  # another process may have moved the slot after the first was opened
    else:
        assert world.service(guarantee=guarantee).run() is True
        assert "PostgreSQL was set back" in caplog.text
