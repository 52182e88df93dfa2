"""The documentation as data: pages, their code blocks, links and headings.

A comment right before a block says what becomes of it:
`<!-- not run: REASON -->` where it cannot be run here, `<!-- run by tests/....py -->` where a test of its own does so.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted((ROOT / "docs").glob("*.md"))
LANGUAGES = {"go", "java", "js", "sh", "console", "toml", "sql", "python", "yaml", "json", "properties", "text"}

_MARK = re.compile(r"<!-- (?:not run: (?P<reason>.+?)|run by (?P<test>tests/\S+\.py)) -->")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `line` counts from 1; `reason` and `test` are those of a comment before it, else empty."""

    page: str
    line: int
    language: str
    text: str
    reason: str
    test: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether it is for our own tests to run it."""
        return not (self.reason or self.test)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


@cache
def blocks(page: Path) -> list[Block]:
    """The page's code blocks in their order."""
    found, mark = [], None
    for token in tokens(page):
        if token.type == "fence":
            reason, test = (mark["reason"] or "", mark["test"] or "") if mark else ("", "")
            assert token.map
            found.append(Block(name(page), token.map[0] + 1, token.info.strip(), token.content, reason, test))
        mark = _MARK.search(token.content) if token.type == "html_block" else None
    return found


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language in languages or not languages]


def links(page: Path) -> Iterator[tuple[str, int]]:
    """Where links and pictures of the page lead, and in which line they are."""
    for token in tokens(page):
        for child in token.children or ():
            target = child.attrGet("href" if child.type == "link_open" else "src")
            if child.type in ("link_open", "image") and isinstance(target, str):
                yield target, (token.map or [0])[0] + 1
        if token.type == "html_block":
            yield from ((source, (token.map or [0])[0] + 1) for source in re.findall(r'src="([^"]+)"', token.content))


def spans(page: Path) -> Iterator[str]:
    """The code within the page's text."""
    for token in tokens(page):
        yield from (child.content for child in token.children or () if child.type == "code_inline")


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of the page's headings, as GitHub makes them."""
    found: set[str] = set()
    stream = tokens(page)
    for opening, inline in itertools.pairwise(stream):
        if opening.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            same = sum(one == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", one) is not None for one in found)
            found.add(f"{slug}-{same}" if slug in found else slug)
    return found
