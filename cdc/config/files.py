"""Settings from files: CDC_SECTION__NAME_FILE names a file, as Docker and Kubernetes provide secrets.

Error messages never show a file's content, and show the variable's value only if it looks like a path: it may be the
secret itself, set by mistake.
"""

import codecs
from pathlib import Path
from typing import Final

LARGEST: Final = 1_000_000  # bytes; secrets are small, and a larger file may be a device or a log
SUFFIX: Final = "_FILE"


NEWLINES: Final = "\r\n"
"""Removed at the end of a value: `echo` writes one, and with it base64 texts of Kubernetes secrets end in one."""


def decoded(content: bytes) -> str:
    """Return the text of a file. Raises ValueError if it is not UTF-8, or begins with a byte order mark."""
    if content.startswith(codecs.BOM_UTF8):
        raise ValueError("a UTF-8 byte order mark (BOM) is not supported: save the file as UTF-8 without it")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError("not valid UTF-8") from None


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
        text = decoded(content).rstrip(NEWLINES)
    except ValueError as error:
        raise ValueError(f"{_shown(name)}: {error}") from None
    if not text:
        raise ValueError(f"{_shown(name)}: empty")
    return text


def _shown(name: str) -> str:
    is_path = "\n" not in name and (name.startswith("/") or ("/" in name and Path(name).parent.is_dir()))
    return f"file {name}" if is_path else "file (name not shown because it may be the secret itself)"
