"""Download jars from Maven Central; jgo resolves the dependencies.

jgo downloads in place and only warns about a wrong checksum, so it would keep using an interrupted download. Here a
file gets its name only after its SHA-1 matches that of the repository.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import requests
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import Artifact, MavenContext, PythonResolver
from requests.adapters import HTTPAdapter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from urllib3.util import Retry

from cdc.errors import LocalStackError

TIMEOUT_SECONDS = 20  # without receiving data
ATTEMPTS = 3
DOWNLOADS_AT_ONCE = 6


class _StoppedError(Exception):
    """The user interrupted the download."""


class _Resolver(PythonResolver):
    """jgo's resolver with atomic, verified downloads."""

    def __init__(self) -> None:
        super().__init__()
        self.session = requests.Session()  # reuses connections, which takes a third of jgo's time
        retry = Retry(ATTEMPTS, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504))
        self.session.mount("https://", HTTPAdapter(max_retries=retry, pool_maxsize=DOWNLOADS_AT_ONCE))
        self.stopped = threading.Event()
        self.received = 0  # bytes

    def download(self, artifact: Artifact) -> Path:
        target = artifact.cached_path
        assert target is not None  # the context has a repository
        url = f"{MAVEN_CENTRAL_URL}/{artifact.component.path_prefix.as_posix()}/{artifact.filename}"
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._fetch(url, target)
                break
            except (requests.ConnectionError, requests.Timeout, ValueError):
                if attempt == ATTEMPTS:
                    raise
        return target

    def _fetch(self, url: str, target: Path) -> None:
        """Download a file. Raises requests.RequestException, and ValueError if the checksum differs."""
        expected = self._get(f"{url}.sha1").text.split()[0]
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha1(usedforsecurity=False)
        number, name = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.", suffix=".part")
        try:
            with open(number, "wb") as draft, self._get(url, stream=True) as response:
                for chunk in response.iter_content(65536):
                    if self.stopped.is_set():
                        raise _StoppedError
                    draft.write(chunk)
                    digest.update(chunk)
                    self.received += len(chunk)
                draft.flush()
                os.fsync(draft.fileno())
            if digest.hexdigest() != expected:
                raise ValueError(f"{url} has SHA-1 {digest.hexdigest()}, not {expected}")
            os.replace(name, target)
        finally:
            Path(name).unlink(missing_ok=True)

    def _get(self, url: str, *, stream: bool = False) -> requests.Response:
        response = self.session.get(url, stream=stream, timeout=TIMEOUT_SECONDS)
        response.raise_for_status()
        return response


def download(coordinates: Sequence[str], repository: Path, what: str, console: Console | None) -> list[Path]:
    """Download the jars of `coordinates`, and the runtime dependencies of the first, into `repository`.

    Returns their paths. Raises LocalStackError if Maven Central is unreachable or a download is damaged.
    """
    logging.getLogger("jgo").setLevel(logging.ERROR)
    for leftover in repository.rglob("*.part"):  # of a killed download; the caller holds the lock
        leftover.unlink()
    resolver = _Resolver()
    with resolver.session, _progress(resolver, what, console) as progress:
        try:
            progress(f"{what}: resolving jars", 0, None)
            artifacts = _resolve(resolver, coordinates, repository)
            return _fetch_all(resolver, artifacts, lambda done: progress(f"{what}: jars", done, len(artifacts)))
        except (requests.RequestException, RuntimeError, ValueError, ElementTree.ParseError) as error:
            raise LocalStackError(
                f"cannot download {what} from {MAVEN_CENTRAL_URL}: {_cause(error)}",
                "the first start needs network access to download 45 MB",
            ) from error


def _cause(error: BaseException) -> str:
    """Return the innermost cause: requests wraps urllib3's error, which wraps the system's."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return f"{error}" or type(error).__name__


def _resolve(resolver: _Resolver, coordinates: Sequence[str], repository: Path) -> list[Artifact]:
    context = MavenContext(resolver=resolver, repo_cache=repository)
    first, *others = [context.create_dependency(coordinate) for coordinate in coordinates]
    # Resolve the first alone: with several inputs, jgo would apply the dependency versions of log4j, which include a
    # much older kafka-clients.
    given, needed = resolver.resolve([first])
    wanted = [d for d in needed if d.scope in ("compile", "runtime") and not d.optional]
    return [dependency.artifact for dependency in [*given, *others, *wanted]]


def _fetch_all(resolver: _Resolver, artifacts: list[Artifact], report: Callable[[int], None]) -> list[Path]:
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        futures = [pool.submit(artifact.resolve) for artifact in artifacts]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                report(done)
        except BaseException:
            resolver.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


@contextlib.contextmanager
def _progress(
    resolver: _Resolver, what: str, console: Console | None
) -> Iterator[Callable[[str, int, int | None], None]]:
    """A progress bar on a terminal, one plain line elsewhere; yields `show(description, done, total)`."""
    if console is None or not console.is_terminal:
        if console:
            console.print(f"downloading {what} from Maven Central (45 MB, once)", highlight=False)
        yield lambda description, done, total: None  # noqa: ARG005 - nothing to show it on
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[megabytes]:.0f} MB"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, megabytes=0.0)

        def show(description: str, done: int, total: int | None) -> None:
            megabytes = resolver.received / 1e6
            bar.update(task, description=description, completed=done, total=total, megabytes=megabytes)

        yield show
