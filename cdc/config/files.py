"""Settings from files that variables name: CDC_SECTION__NAME_FILE, as Docker and Kubernetes hand over secrets.

What a file holds is never told, and what a variable holds only where it reads as a path: somebody may have put the
secret itself there.
"""

from pathlib import Path
from typing import Final

LARGEST: Final = 1_000_000  # bytes; secrets are small, and what is not may be a device or a log
SUFFIX: Final = "_FILE"


def read(name: str) -> str:
    """The text of a file without the newlines at its end. Raises ValueError that says what is wrong with it."""
    try:
        with Path(name).open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"{_shown(name)}: {error.strerror}") from None
    if len(content) > LARGEST:
        raise ValueError(f"{_shown(name)}: larger than {LARGEST} bytes, which no setting is")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{_shown(name)}: not a text in UTF-8") from None
    if not text:
        raise ValueError(f"{_shown(name)}: empty")
    return text


def _shown(name: str) -> str:
    is_path = "\n" not in name and (name.startswith("/") or ("/" in name and Path(name).parent.is_dir()))
    return f"file {name}" if is_path else "file (not shown: what stands there may be the secret itself)"
