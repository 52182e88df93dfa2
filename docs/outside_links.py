"""A hook of MkDocs: files outside docs/ that pages link to are part of the site, below repository/.

Links stay relative paths within the repository, so that they work on GitHub as well, and `strict` finds broken ones.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "repository"
HOME = {"README.md": "index.md"}  # the site has its own first page

_TARGET = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each file that a page links to, and the files that those link to."""
    todo = [file for file in files if file.is_documentation_page()]
    while todo:
        page = todo.pop()
        for target in _TARGET.findall(page.content_string):
            name = _repository_path(page, target)
            uri = _site_path(name)
            if (ROOT / name).is_file() and files.get_file_from_path(uri) is None:
                added = File.generated(config, uri, abs_src_path=str(ROOT / name))
                files.append(added)
                todo += [added] if added.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 -- MkDocs passes these by name
    """Point links that leave docs/ to where their files are in the site."""
    here = posixpath.dirname(page.file.src_uri)

    def moved(found: re.Match[str]) -> str:
        return posixpath.relpath(_site_path(_repository_path(page.file, found[1])), here or ".")

    return _TARGET.sub(moved, markdown)


def _repository_path(page: File, target: str) -> str:
    """The path within the repository of a link's target."""
    inside = page.src_uri.startswith(f"{FOLDER}/")
    source = page.src_uri.removeprefix(f"{FOLDER}/") if inside else f"docs/{page.src_uri}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _site_path(name: str) -> str:
    """The path within the site of a file of the repository."""
    return HOME.get(name) or (name.removeprefix("docs/") if name.startswith("docs/") else f"{FOLDER}/{name}")
