"""Which failures are an event's own, so that only these make it a dead letter; and exceptions that cannot be worded."""

from typing import Any

import psycopg
import pytest
from psycopg import errors

from cdc.consumer import CommittedEarly, Event, InboxError, InvalidId, MissingId, Rejected
from cdc.consumer.blame import Blame, blame, class_of, ends_the_program, message_of
from cdc.consumer.dead_letters import headers
from cdc.consumer.decoding import (
    NoRegistry,
    Undecodable,
    UnknownFingerprint,
    UnknownFraming,
    UnknownId,
    Unreadable,
    Unresolvable,
)
from cdc.errors import ConfigError, KafkaUnavailable, PostgresError, Temporary
from cdc.registry.errors import RegistryError, RegistryUnavailable

PUBLISHED = Event("t", 0, 0, 1000, b"k", b"v", (("id", b"e"),), "e", "T", None, None)
FOREIGN = Event("t", 0, 0, 1000, b"k", b"v", (), None, None, None, None)


class OtherDriver(Exception):
    """An error of psycopg2, or of a library that words SQLSTATEs like it."""

    def __init__(self, pgcode: str) -> None:
        self.pgcode = pgcode


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no such customer"), Blame.EVENT),
        (Rejected("never"), Blame.EVENT_ALWAYS),
        (MissingId("no id"), Blame.EVENT_ALWAYS),
        (InvalidId("long"), Blame.EVENT_ALWAYS),
        (CommittedEarly("half"), Blame.EVENT_ALWAYS),
        (InboxError("rolled back"), Blame.EVENT),
        (errors.UniqueViolation(), Blame.EVENT),
        (errors.InvalidTextRepresentation(), Blame.EVENT),
        (errors.RaiseException(), Blame.EVENT),
        (errors.ProgramLimitExceeded(), Blame.EVENT),
        (errors.DatatypeMismatch(), Blame.EVENT),
        (psycopg.DataError("a NUL character"), Blame.EVENT),
        (psycopg.ProgrammingError("cannot adapt type"), Blame.EVENT),
        (Temporary("not yet"), Blame.OUTAGE),
        (KafkaUnavailable("down"), Blame.OUTAGE),
        (RegistryUnavailable("down"), Blame.OUTAGE),
        (psycopg.OperationalError("the connection is lost"), Blame.OUTAGE),
        (errors.ReadOnlySqlTransaction(), Blame.OUTAGE),
        (errors.SerializationFailure(), Blame.OUTAGE),
        (errors.DeadlockDetected(), Blame.OUTAGE),
        (errors.LockNotAvailable(), Blame.OUTAGE),
        (errors.DiskFull(), Blame.OUTAGE),
        (errors.AdminShutdown(), Blame.OUTAGE),
        (errors.CannotConnectNow(), Blame.OUTAGE),
        (errors.QueryCanceled(), Blame.OUTAGE),
        (OtherDriver("57P01"), Blame.OUTAGE),
        (errors.InsufficientPrivilege(), Blame.SETUP),
        (errors.UndefinedTable(), Blame.SETUP),
        (errors.UndefinedColumn(), Blame.SETUP),
        (errors.InvalidSchemaName(), Blame.SETUP),
        (errors.InvalidColumnReference(), Blame.SETUP),
        (errors.InvalidPassword(), Blame.SETUP),
        (errors.IndexCorrupted(), Blame.SETUP),
        (errors.DuplicatePreparedStatement(), Blame.SETUP),
        (RegistryError("refused", status=401), Blame.SETUP),
        (RegistryError("refused", status=403), Blame.SETUP),
        (ConfigError("an open transaction"), Blame.SETUP),
        (PostgresError("the table is missing"), Blame.SETUP),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value.name,
)
def test_case_h3_only_a_failure_of_the_event_itself_makes_it_a_dead_letter(
    error: BaseException, expected: Blame
) -> None:
    assert blame(error, PUBLISHED) is expected
    if expected in (Blame.OUTAGE, Blame.SETUP):  # however the handler or a library wraps it
        for wrapped in (raised(error, cause=error), raised(error), raised(raised(error))):
            assert blame(wrapped, PUBLISHED) is expected
        assert blame(BaseExceptionGroup("several", [ValueError(), error]), PUBLISHED) is expected
        assert blame(raised(error, suppressed=True), PUBLISHED) is Blame.EVENT
    decided = raised(error, Rejected("the handler has decided"), cause=error)
    assert blame(decided, PUBLISHED) is Blame.EVENT_ALWAYS


def raised(
    during: BaseException,
    error: BaseException | None = None,
    *,
    cause: BaseException | None = None,
    suppressed: bool = False,
) -> BaseException:
    """An exception that was raised while another one was handled."""
    made = error or ValueError("what the handler makes of it")
    made.__context__, made.__cause__ = during, cause
    made.__suppress_context__ = suppressed
    return made


@pytest.mark.parametrize(
    ("kind", "published", "foreign"),
    [
        (UnknownId, Blame.OUTAGE, Blame.EVENT_ALWAYS),
        (NoRegistry, Blame.SETUP, Blame.EVENT_ALWAYS),
        (UnknownFingerprint, Blame.SETUP, Blame.EVENT_ALWAYS),
        (Unresolvable, Blame.SETUP, Blame.EVENT_ALWAYS),
        (Unreadable, Blame.EVENT_ALWAYS, Blame.EVENT_ALWAYS),
        (UnknownFraming, Blame.EVENT_ALWAYS, Blame.EVENT_ALWAYS),
    ],
)
def test_case_h3_a_schema_that_is_not_known_yet_is_not_the_fault_of_a_published_event(
    kind: type[Undecodable], published: Blame, foreign: Blame
) -> None:
    assert blame(kind("no schema"), PUBLISHED) is published
    assert blame(kind("no schema"), FOREIGN) is foreign


def test_a_group_of_refusals_is_a_refusal_and_causes_may_be_circular() -> None:
    assert blame(ExceptionGroup("all", [Rejected("a"), Rejected("b")]), PUBLISHED) is Blame.EVENT_ALWAYS
    assert blame(ExceptionGroup("one", [Rejected("a"), ValueError()]), PUBLISHED) is Blame.EVENT
    one, other = ValueError(), KeyError()
    one.__context__, other.__context__ = other, one
    assert blame(one, PUBLISHED) is Blame.EVENT


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class NotText(Exception):
    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Recursive(Exception):
    def __str__(self) -> str:
        return str(self)


class Text(str):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    def __getitem__(self, key: Any) -> str:
        raise RuntimeError("no words")


class OwnText(Exception):
    def __str__(self) -> str:
        return Text("text")


Unnamed = type("X" * 5000, (Exception,), {"__module__": "\ud800\0"})


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Silent(), "(no message: its __str__ raised RuntimeError)"),
        (NotText(), "(no message: its __str__ raised TypeError)"),
        (Recursive(), "(no message: its __str__ raised RecursionError)"),
        (OwnText(), "text"),
        (ValueError("x" * 10_000_000), "x" * 1000 + "…"),
        (ValueError("no\0 \ud800"), "no  ?"),
        (KeyError(Silent()), "(no message: its __str__ raised RuntimeError)"),
        (ExceptionGroup("group \ud800", [Silent()]), "group ? (1 sub-exception)"),
        (Unnamed("named oddly"), "named oddly"),
    ],
    ids=["silent", "not text", "recursive", "own text", "huge", "surrogate", "within", "group", "named oddly"],
)
def test_case_h14_an_exception_that_cannot_be_worded_has_a_message_all_the_same(
    error: BaseException, message: str
) -> None:
    assert message_of(error) == message
    made = dict(headers(PUBLISHED, error, "g"))
    assert made["cdc-error-message"] == message
    for name in (class_of(error), class_of(error, full=True), made["cdc-error-class"]):
        assert isinstance(name, str)
        assert 0 < len(name.encode()) <= 1010
        assert "\0" not in name


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_case_h14_only_exceptions_that_ask_for_it_end_the_program(error: BaseException) -> None:
    assert ends_the_program(error)
    assert ends_the_program(BaseExceptionGroup("g", [ValueError(), BaseExceptionGroup("h", [error])]))


def test_case_h14_other_base_exceptions_are_failures_of_the_handler() -> None:
    class Cancelled(BaseException):
        pass

    assert not ends_the_program(Cancelled())
    assert not ends_the_program(BaseExceptionGroup("g", [Cancelled(), ValueError()]))
    assert blame(BaseExceptionGroup("g", [Cancelled(), ValueError()]), PUBLISHED) is Blame.EVENT
    assert blame(BaseExceptionGroup("g", [Cancelled(), Temporary("x")]), PUBLISHED) is Blame.OUTAGE
