"""Examples at the end of a command's help, each a command line that works as it stands."""


def examples(*lines: str) -> str:
    """The epilog that shows these command lines, one below the other."""
    # Behind \b click leaves lines as they are.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
