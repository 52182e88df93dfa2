"""Other versions of PostgreSQL that happen to be installed here; tests run on them too."""

from pathlib import Path

OLD_POSTGRES = [folder for folder in [Path("/usr/lib/postgresql/15/bin")] if (folder / "initdb").exists()]

# The local stack's own PostgreSQL is built without TLS; those of Debian and Ubuntu have it.
_PACKAGED = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda program: int(program.parts[-3]))
POSTGRES_WITH_TLS = _PACKAGED[-1].parent if _PACKAGED else None
