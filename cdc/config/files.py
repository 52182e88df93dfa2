"""Settings from files: CDC_SECTION__NAME_FILE names a file, as Docker and Kubernetes provide secrets.

Error messages never show a file's content, and show the variable's value only if it looks like a path: it may be the
secret itself, set by mistake.
"""

from pathlib import Path
from typing import Final

LARGEST: Final = 1_000_000  # bytes; secrets are small, and a larger file may be a device or a log
SUFFIX: Final = "_FILE"


def read(name: str) -> str:
    """Return the text of a file without trailing newlines. Raises ValueError if it cannot be read or is empty."""
    try:
        with Path(name).open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"{_shown(name)}: {error.strerror}") from None
    if len(content) > LARGEST:
        raise ValueError(f"{_shown(name)}: larger than {LARGEST} bytes, the limit for a setting")
    try:
        text = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{_shown(name)}: not valid UTF-8") from None
    if not text:
        raise ValueError(f"{_shown(name)}: empty")
    return text


def _shown(name: str) -> str:
    is_path = "\n" not in name and (name.startswith("/") or ("/" in name and Path(name).parent.is_dir()))
    return f"file {name}" if is_path else "file (name not shown because it may be the secret itself)"
