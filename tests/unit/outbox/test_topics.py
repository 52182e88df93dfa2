"""Topic names and their templates."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import ConfigError
from cdc.outbox.topic_template import TopicTemplate, is_topic_name


@pytest.mark.parametrize("name", ["a", "outbox.event.order", "A_b-c.9", "...", "x" * 249, "_"])
def test_kafka_takes_these_names(name: str) -> None:
    assert is_topic_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 250, "a b", "a/b", "é", "a\n", "a:b", "{x}", "a\0"])
def test_kafka_refuses_these_names(name: str) -> None:
    assert not is_topic_name(name)


@pytest.mark.parametrize(
    ("template", "columns", "topic"),
    [
        ("outbox.event.{aggregatetype}", ("aggregatetype",), "outbox.event.order"),
        ("{tenant}.{aggregatetype}", ("tenant", "aggregatetype"), "acme.order"),
        ("{aggregatetype}.{aggregatetype}", ("aggregatetype",), "order.order"),
        ("events", (), "events"),
    ],
)
def test_a_template_is_filled_from_columns(template: str, columns: tuple[str, ...], topic: str) -> None:
    parsed = TopicTemplate(template)
    assert parsed.columns == columns
    assert parsed.fill({"aggregatetype": "order", "tenant": "acme"}.get) == topic


def test_an_aggregate_type_may_have_a_topic_of_its_own() -> None:
    template = TopicTemplate("events.{tenant}", {"order": "orders"}, "kind")
    assert template.columns == ("kind", "tenant")
    assert (template.fixed, template.known) == (None, ["orders"])
    assert template.fill({"kind": "order", "tenant": None}.get) == "orders"
    assert template.fill({"kind": "note", "tenant": "acme"}.get) == "events.acme"
    assert template.fill({"kind": "note", "tenant": None}.get) is None
    assert template.fill({"kind": None, "tenant": "acme"}.get) == "events.acme"
    known = [name for name in ("orders", "orders2", "events.acme", "events.") if re.fullmatch(template.pattern, name)]
    assert known == ["orders", "events.acme"]


def test_all_topics_are_known_without_a_column_in_the_template() -> None:
    template = TopicTemplate("events", {"order": "orders"}, "kind")
    assert (template.fixed, template.known, template.columns) == (None, ["events", "orders"], ("kind",))
    assert TopicTemplate("events").fixed == "events"


@pytest.mark.parametrize(
    "template",
    ["", "{", "}", "a{}", "{a!r}", "{a:>5}", "{a:{b}}", "a b", "ev/{a}", "{{a}}", ".", "x" * 250, "é{a}"],
)
def test_a_malformed_template_is_a_config_error_that_shows_it(template: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TopicTemplate(template)
    assert repr(template) in str(caught.value)


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=10), min_size=2))
def test_a_column_value_is_put_in_as_it_is_and_never_read_as_a_template(values: dict[str, str]) -> None:
    assert TopicTemplate("x.{a}-{b}").fill(values.get) == f"x.{values['a']}-{values['b']}"
