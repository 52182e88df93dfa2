"""docs/consumer.md documents all public names, and its examples exist and are short."""

import re

import pytest

import cdc.consumer
from tests import ROOT

DOCS = (ROOT / "docs" / "consumer.md").read_text()
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("name", cdc.consumer.__all__)
def test_every_public_name_has_a_docstring_and_is_in_the_docs(name: str) -> None:
    assert getattr(cdc.consumer, name).__doc__
    assert re.search(rf"\b{name}\b", DOCS)


def test_the_docs_link_to_every_example_and_to_no_other() -> None:
    assert sorted(re.findall(r"\(\.\./examples/(\w+\.py)\)", DOCS)) == EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_documents_how_to_run_it(name: str) -> None:
    text = (ROOT / "examples" / name).read_text()
    assert text.count("\n") < 60
    assert f"\npython examples/{name} " in text
