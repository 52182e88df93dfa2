"""Other versions of PostgreSQL that happen to be installed here; tests run on one of them too, and on all at night."""

import os
from pathlib import Path

_VERSIONS = (14, 15, 16, 17) if os.environ.get("CDC_TEST_NIGHTLY") else (15,)
_FOLDERS = [Path(f"/usr/lib/postgresql/{version}/bin") for version in _VERSIONS]
OLD_POSTGRES = [folder for folder in _FOLDERS if (folder / "initdb").exists()]

# The local stack's own PostgreSQL is built without TLS; those of Debian and Ubuntu have it.
_PACKAGED = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda program: int(program.parts[-3]))
POSTGRES_WITH_TLS = _PACKAGED[-1].parent if _PACKAGED else None
