"""The account that PostgreSQL runs as, and folders that this account can access.

PostgreSQL refuses to run as root, so under root it runs as an existing unprivileged account. If that account cannot
enter the stack's home (/root, or a `mktemp -d`), PostgreSQL's files go to a shelter under /var/tmp. No account is
created, and modes of existing folders are not changed.
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
    """Return the account to run PostgreSQL as, or None for the current one. Raises LocalStackError."""
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "daemon"):
        try:
            if pwd.getpwnam(name).pw_uid != 0:
                return name
        except KeyError:
            continue
    raise LocalStackError("PostgreSQL does not run as root, and there is no account `nobody`", "run as another user")


def can_enter(folder: Path, user: str | None) -> bool:
    """Return whether `user` can enter `folder`, or its nearest existing parent."""
    while not folder.exists():
        folder = folder.parent
    return user is None or _works(["test", "-x", str(folder)], user)


def can_run(program: Path, user: str | None) -> bool:
    """Return whether `user` can run `program --version`, including its libraries."""
    return user is None or _works([str(program), "--version"], user)


def _works(command: list[str], user: str) -> bool:
    # Try it rather than read mode bits, because ACLs and mount options matter too.
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
    """Make `user` the owner of a folder of the stack."""
    if user:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)


def shelter(home: Path) -> Path:
    """Return the folder outside of `home` that replaces it; it may not exist."""
    return SHELTERS / f"cdc-publisher-{hashlib.sha256(str(home).encode()).hexdigest()[:16]}"


def make_shelter(home: Path) -> Path:
    """Create the shelter of `home`. Raises LocalStackError if another user created a folder of that name."""
    folder = shelter(home)
    folder.mkdir(mode=0o711, exist_ok=True)
    found = folder.lstat()
    # /var/tmp is world-writable: a folder prepared by another user could replace our binaries.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise LocalStackError(f"{folder} is owned by another user", "remove it, or choose another folder with --home")
    folder.chmod(0o711)  # regardless of the umask
    return folder


def copy_readable(source: Path, target: Path, *, leave: tuple[str, ...] = ()) -> None:
    """Copy a tree so that all accounts can read and run it, without files that match the patterns `leave`."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*leave), dirs_exist_ok=True)
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
