"""What takes runs of plain rows: the native accelerator where it is installed, else code written in Python.

Both give the same records; the setting `[delivery] accelerator` and the log of each start say which it is.
"""

import importlib
from typing import Any, Final, Literal, NamedTuple

from cdc.errors import ConfigError
from cdc.records.fastpath.generated import Unrolled
from cdc.records.fastpath.layout import Make

VERSION: Final = "0.6"
"""Of the accelerator's interface: its major and minor version."""

Choice = Literal["auto", "native", "python"]


class Accelerator(NamedTuple):
    """How runs are taken, and what to call it in logs."""

    name: str
    make: Make


PYTHON: Final = Accelerator("python", Unrolled)

INSTALL: Final = "pip install 'cdc-publisher[native]', or in a clone with Rust 1.88 or newer: pip install ./native"


def is_missing(choice: Choice, chosen: Accelerator) -> bool:
    """Return whether `choice` allows the native accelerator, but Python was chosen because it is not installed."""
    return choice == "auto" and chosen is PYTHON


def choose(choice: Choice) -> Accelerator:
    """The accelerator that is asked for. Raises ConfigError when it is the native one, and that cannot be used."""
    if choice == "python":
        return PYTHON
    try:
        native: Any = importlib.import_module("cdc_native")
    except ImportError as error:
        if choice == "auto" and isinstance(error, ModuleNotFoundError):
            return PYTHON
        problem = f"the native accelerator cannot be loaded: {error}"
    else:
        if native.__version__.startswith(f"{VERSION}."):
            return Accelerator(f"native {native.__version__}", native.Runs)
        problem = f"the native accelerator is of version {native.__version__}, not {VERSION}"
    raise ConfigError(
        f"[delivery] accelerator: {problem}",
        hint=f"install the matching version ({INSTALL}), remove it with `pip uninstall cdc-publisher-native`, or set"
        ' accelerator = "python"',
    )
