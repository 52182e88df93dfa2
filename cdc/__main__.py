"""The command `cdc-publisher`, and `python -m cdc`."""

import gc
import os
import signal


def main() -> None:
    """Run the command."""
    if os.getpid() == 1:
        # The kernel gives the first process of a container no signal without a handler, so that SIGTERM during the
        # imports, a few tenths of a second, would be lost. Python has one for SIGINT.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    # Nothing that imports create becomes garbage: collections would take a third of their time. `cdc.cli.main` enables
    # them again.
    gc.disable()
    # pydantic would look for plugins in the metadata of every installed distribution: 4 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from cdc.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
