"""Other versions of PostgreSQL that happen to be installed here; tests run on them too."""

from pathlib import Path

OLD_POSTGRES = [folder for folder in [Path("/usr/lib/postgresql/15/bin")] if (folder / "initdb").exists()]
