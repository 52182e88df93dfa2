"""Which account PostgreSQL runs as, and the folders that this account can reach.

PostgreSQL refuses to run as root. Under root we run it as an unprivileged account that exists already,
and where that account cannot enter the stack's home (/root, a `mktemp -d`), its files go to a shelter
under /var/tmp. No account is made, and no folder that is not ours changes its mode.
"""

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

from cdc.errors import LocalStackError

SHELTERS = Path("/var/tmp")  # survives a reboot, unlike /tmp on many systems


def unprivileged() -> str | None:
    """The account to run PostgreSQL as; None when that is our own. Raises LocalStackError."""
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "daemon"):
        try:
            if pwd.getpwnam(name).pw_uid != 0:
                return name
        except KeyError:
            continue
    raise LocalStackError("PostgreSQL does not run as root, and there is no account `nobody`", "run as a user")


def can_enter(folder: Path, user: str | None) -> bool:
    """Whether `user` can reach what is in `folder` (or in its nearest existing parent)."""
    while not folder.exists():
        folder = folder.parent
    return user is None or _works(["test", "-x", str(folder)], user)


def can_run(program: Path, user: str | None) -> bool:
    """Whether `user` can run `program --version`, its libraries included."""
    return user is None or _works([str(program), "--version"], user)


def _works(command: list[str], user: str) -> bool:
    # Asked by doing, not by reading mode bits: ACLs and mount options count too.
    account = pwd.getpwnam(user)
    try:
        done = subprocess.run(
            command,
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def give(folder: Path, user: str | None) -> None:
    """Make `user` the owner of a folder of ours."""
    if user:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)


def shelter(home: Path) -> Path:
    """The folder outside of `home` that stands in for it; it may not exist."""
    return SHELTERS / f"cdc-publisher-{hashlib.sha256(str(home).encode()).hexdigest()[:16]}"


def make_shelter(home: Path) -> Path:
    """Make the shelter of `home`. Raises LocalStackError when somebody else made a folder of that name."""
    folder = shelter(home)
    folder.mkdir(mode=0o711, exist_ok=True)
    found = folder.lstat()
    # /var/tmp is everybody's: a folder prepared by another user could swap our binaries.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise LocalStackError(f"{folder} is not ours", "remove it, or choose another folder with --home")
    folder.chmod(0o711)  # whatever the umask made of it
    return folder


def copy_readable(source: Path, target: Path, *, leave: tuple[str, ...] = ()) -> None:
    """Copy a tree so that every account can read and run it; files named in `leave` (patterns) stay out."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*leave), dirs_exist_ok=True)
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
